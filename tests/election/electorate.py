"""A handful of servers and a bad network for election machines: no sockets, no real time.

Everything random comes from one seed. A nomination can be ordained (the leader's heartbeat is
heard everywhere a moment later) or left without consequence, as the core may do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random

from distinv.config import Timing
from distinv.election.api import (
    Election,
    ElectionAction,
    ElectionContext,
    ElectionFactory,
    Nominate,
    SendElection,
)
from distinv.entry import Ballot, NodeId

TIMING = Timing()
ANSWER_US = TIMING.election_answer_us


class Electorate:
    """Servers with the ids `ids`, all voters, all alive at time 0 and at rest."""

    def __init__(
        self,
        factory: ElectionFactory,
        ids: Sequence[int],
        *,
        seed: int = 0,
        loss: float = 0.0,
        delay_max_us: int = 2_000,
        ordain: Callable[[NodeId], bool] | None = None,
        ordain_us: int = 20_000,
    ) -> None:
        self.random = Random(seed)
        self.ids = tuple(NodeId(number) for number in sorted(ids))
        self.loss = loss
        self.delay_max_us = delay_max_us
        self.ordain = ordain
        self.ordain_us = ordain_us
        self.now = 0
        self.dead: dict[NodeId, None] = {}
        self.nominations: list[tuple[int, NodeId, NodeId]] = []
        """(when, by whom, whom)"""
        self.leader: NodeId | None = None
        self.sent = 0
        self.trace: list[str] = []
        self._term = 0
        self._order = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self.nodes: dict[NodeId, Election] = {}
        for node in self.ids:
            context = ElectionContext(node, Random(self.random.getrandbits(64)), TIMING)
            self.nodes[node] = factory(context)
        for node in self.ids:
            self.act(node, self.nodes[node].on_members(self.ids, 0))

    # --- what happens -------------------------------------------------------------------------

    def lead(self, leader: int) -> None:
        """`leader` is in office and everybody alive hears it."""
        self.leader = NodeId(leader)
        self._term += 1
        for node in self.alive():
            ballot = Ballot(self._term, leader)
            self.act(node, self.nodes[node].on_leader(NodeId(leader), ballot, self.now))

    def kill(self, node: int) -> None:
        self.dead[NodeId(node)] = None
        if self.leader == node:
            self.leader = None

    def suspect(self, nodes: Iterable[int], leader: int | None, after_us: int = 0) -> None:
        for node in nodes:
            self.at(self.now + after_us, partial(self._suspect, NodeId(node), leader))

    def at(self, time: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._waiting, (time, self._order, happen))

    def run(self, until: int) -> None:
        """Step messages and deadlines in the order of time, up to `until`."""
        while (step := self._next()) is not None and step[0] <= until:
            self.now, happen = max(self.now, step[0]), step[1]
            happen()
        self.now = until

    def run_until_nominated(self, limit_us: int) -> NodeId | None:
        """The first nominee that lives, or None within `limit_us` from now."""
        end = self.now + limit_us
        while (step := self._next()) is not None and step[0] <= end:
            self.now, happen = max(self.now, step[0]), step[1]
            happen()
            for _, _, nominee in self.nominations:
                if nominee not in self.dead:
                    return nominee
        return None

    def alive(self) -> list[NodeId]:
        return [node for node in self.ids if node not in self.dead]

    def resting(self) -> bool:
        """No message under way, no deadline set by anybody alive."""
        return not self._waiting and all(
            self.nodes[node].deadline() is None for node in self.alive()
        )

    # --- how it happens -----------------------------------------------------------------------

    def act(self, node: NodeId, actions: Iterable[ElectionAction]) -> None:
        for action in actions:
            if isinstance(action, Nominate):
                self.trace.append(f"{self.now} {node} nominates {action.node}")
                self.nominations.append((self.now, node, action.node))
                if self.ordain is not None and self.ordain(action.node):
                    self.at(self.now + self.ordain_us, partial(self._win, action.node))
            else:
                self._send(node, action)

    def _send(self, source: NodeId, send: SendElection) -> None:
        self.sent += 1
        self.trace.append(f"{self.now} {source} to {send.to}: {send.body.hex()}")
        if self.random.random() < self.loss:
            return
        delay_us = self.random.randrange(1, self.delay_max_us + 1)
        self.at(self.now + delay_us, lambda: self._deliver(source, send))

    def _deliver(self, source: NodeId, send: SendElection) -> None:
        if send.to not in self.dead:
            self.act(send.to, self.nodes[send.to].on_message(source, send.body, self.now))

    def _suspect(self, node: NodeId, leader: int | None) -> None:
        if node not in self.dead and self.leader is None:
            suspected = None if leader is None else NodeId(leader)
            self.act(node, self.nodes[node].on_suspect(suspected, self.now))

    def _win(self, nominee: NodeId) -> None:
        if nominee not in self.dead and self.leader is None:
            self.lead(nominee)

    def _next(self) -> tuple[int, Callable[[], None]] | None:
        """The next thing to happen, taken from the queue if it was there."""
        best: tuple[int, Callable[[], None]] | None = None
        for node in self.alive():
            due = self.nodes[node].deadline()
            if due is not None and (best is None or due < best[0]):
                best = (due, partial(self._remind, node))
        if self._waiting and (best is None or self._waiting[0][0] <= best[0]):
            time, _, happen = heappop(self._waiting)
            return time, happen
        return best

    def _remind(self, node: NodeId) -> None:
        self.act(node, self.nodes[node].on_deadline(self.now))
