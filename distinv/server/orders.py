"""Wishes about the cluster itself: who votes, and who leads. Only the leader's core grants them.

What is so already is done, so an order may be sent again, to whoever leads then.
"""

from __future__ import annotations

from distinv.core import events
from distinv.entry import NodeId
from distinv.server.front import Situation
from distinv.wire.messages import Answer, Message, Order, QueryFailed

ASK_AGAIN = ("not_leader", "no_leader", "not_yet", "overloaded")
"""Reasons after which the client asks again; any other one is for people to read."""

UNKNOWN = "unknown_server"


class Orders:
    """Who waits for which order. Volatile: a new leader is asked anew."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[int, tuple[NodeId, Order]] = {}
        self._next_ticket = 1
        self._out: list[tuple[NodeId, Message]] = []

    def take_messages(self) -> list[tuple[NodeId, Message]]:
        out, self._out = self._out, []
        return out

    def on_order(
        self, client: NodeId, order: Order, situation: Situation
    ) -> events.Order | events.Transfer | None:
        """What the core is to be asked, if it is to be asked anything."""
        if not situation.serving:
            reason = "no_leader" if situation.leader is None else "not_leader"
            self._deny(client, order, reason, situation)
            return None
        if len(self._waiting) >= self._limit:
            self._deny(client, order, "overloaded", situation)
            return None
        server = NodeId(order.server)
        ticket = self._next_ticket
        wish: events.Order | events.Transfer
        if order.what == "transfer":
            wish = events.Transfer(server or None, ticket)
        elif order.what in ("promote", "remove", "leave"):
            wish = events.Order(
                ticket,
                server,
                votes=order.what == "promote",
                stop=order.what == "leave",
                confirmed=order.confirmed,
            )
        else:
            self._deny(client, order, f"there is no order {order.what[:20]!r}", situation)
            return None
        self._waiting[ticket] = (client, order)
        self._next_ticket += 1
        return wish

    def on_answered(self, answered: events.OrderAnswered, situation: Situation) -> None:
        found = self._waiting.pop(answered.ticket, None)
        if found is None:
            return
        client, order = found
        if answered.done:
            self._out.append((client, Answer(order.number, b"")))
        else:
            self._deny(client, order, answered.detail, situation)

    def _deny(self, client: NodeId, order: Order, detail: str, situation: Situation) -> None:
        if detail == UNKNOWN:
            reason, detail = UNKNOWN, "the leader knows no such server: see distinv status"
        else:
            reason = detail if detail in ASK_AGAIN else "invalid_request"
        leader, address = situation.leader or 0, situation.leader_address
        self._out.append((client, QueryFailed(order.number, reason, detail, leader, address)))
