"""Giving the vote up for good: a server asks whoever leads until nobody needs it any more.

The answer to an order is for its caller; what ends this is the leader's word (`Dismissed`) that a
majority of the remaining voters knows of the change. Until then this server may be needed by one
of them to find that out, so it goes on (design of the voter set, `core/changes.py`).
"""

from __future__ import annotations

from distinv.config import Timing
from distinv.core import events
from distinv.core.node import Node
from distinv.entry import NodeId
from distinv.server.orders import ASK_AGAIN
from distinv.wire.messages import Order

TICKET = -1
"""Of the wish of a leader that it be let go itself; others' are counted from 1."""


class Leaving:
    """Of one server, from the wish to the leader's word."""

    def __init__(self, node: Node, timing: Timing) -> None:
        self._node = node
        self._timing = timing
        self._look_at: int | None = None
        self._asked: NodeId | None = None
        """The leader that works on it, until `_patience`."""
        self._patience = 0
        self.done = False
        """It belongs to the cluster no more, and may stop."""
        self.refusal = ""
        """Why the leader will not let it go."""

    def begin(self, now: int) -> None:
        self.refusal = ""
        if self._node.birth is not None:
            self.done = True  # there is no cluster to leave
        else:
            self._look_at, self._asked = now, None

    def give_up(self) -> None:
        """Stay after all, as far as that has not been decided."""
        self._look_at = None

    def deadline(self) -> int | None:
        return self._look_at

    def on_deadline(self, now: int) -> tuple[NodeId, Order] | events.Order | None:
        """Whom to ask, or what to tell the own core, if it is time."""
        if self._look_at is None or now < self._look_at:
            return None
        self._look_at = now + self._timing.heartbeat_us
        node = self._node
        if node.leader is None or (node.leader == self._asked and now < self._patience):
            return None
        self._asked, self._patience = node.leader, now + self._timing.order_us
        if node.leader == node.self_id:
            return events.Order(TICKET, node.self_id, False, stop=True)
        return node.leader, Order(0, "leave", node.self_id, confirmed=True)

    def on_dismissed(self, source: NodeId) -> None:
        if source == self._node.leader:
            self._look_at, self.done = None, True

    def on_refused(self, reason: str, detail: str) -> None:
        """Anything but "later": then it stays."""
        if self._look_at is not None and reason not in ASK_AGAIN:
            self._look_at, self.refusal = None, detail
