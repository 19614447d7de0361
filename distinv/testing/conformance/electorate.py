"""A handful of servers and a bad network for elections: no sockets, no real time, one seed.

It does to an election what the core does: suspects again while nobody leads, passes on messages
of voters only, and lets a nominee campaign, who wins if he lives (when the electorate `ordains`).
Whatever an election returns is checked at once against what it may return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from random import Random

from attrs import frozen

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

ACTIONS_MAX = 64
"""What the core heeds of one call."""
BODY_BYTES_MAX = 1_000
"""A message is one datagram, which is never split."""
CAMPAIGN_US = 20_000
"""Two exchanges and two writes to disk."""

_STEPS_MAX = 20_000
"""Of one run, which takes a few hundred: beyond that something circulates."""
_TALE_LINES = 16


@frozen
class Nomination:
    at: int
    by: NodeId
    whom: NodeId


class Electorate:
    """Servers with the ids 1..`count`, all of them voters, alive and at rest at time 0."""

    def __init__(
        self,
        factory: ElectionFactory,
        count: int,
        *,
        seed: int = 0,
        loss: float = 0.0,
        ordains: bool = False,
    ) -> None:
        self.random = Random(seed)
        self.loss = loss
        self.ordains = ordains
        self.now = 0
        self.leader: NodeId | None = None
        self.nominations: list[Nomination] = []
        self.sends: list[tuple[int, NodeId, SendElection]] = []
        self.reminders: list[tuple[int, NodeId]] = []
        """Deadlines that came."""
        self.lines: list[str] = []
        self.voters: dict[NodeId, tuple[NodeId, ...]] = {}
        """Of whom each server has been told."""
        self._dead: dict[NodeId, None] = {}
        self._suspicious: dict[NodeId, None] = {}
        self._term = 0
        self._order = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._factory = factory
        self.elections: dict[NodeId, Election] = {}
        ids = [NodeId(number) for number in range(1, count + 1)]
        for node in ids:
            self.join(node, ids)

    # --- what happens -------------------------------------------------------------------------

    def join(self, node: int, voters: Sequence[int]) -> None:
        """`node` starts and is told who votes."""
        chance = Random(self.random.getrandbits(64))
        self.elections[NodeId(node)] = self._factory(ElectionContext(NodeId(node), chance, TIMING))
        self.vote_with(node, voters)

    def vote_with(self, node: int, voters: Sequence[int]) -> None:
        """`node` is told who votes from now on."""
        told = tuple(NodeId(voter) for voter in sorted(voters))
        self.voters[NodeId(node)] = told
        self.note(f"{node} is told that {list(told)} vote")
        self.call(node, lambda election: election.on_members(told, self.now))

    def lead(self, leader: int) -> None:
        """`leader` takes office, and everybody alive hears so."""
        self.leader = NodeId(leader)
        self._term += 1
        ballot = Ballot(self._term, leader)
        self._suspicious.clear()
        self.note(f"{leader} leads")
        for node in self.alive():
            self.call(node, lambda election: election.on_leader(NodeId(leader), ballot, self.now))

    def kill(self, *nodes: int) -> None:
        for node in nodes:
            self.note(f"{node} dies")
            self._dead[NodeId(node)] = None
            if self.leader == node:
                self.leader = None

    def suspect(self, nodes: Iterable[int], leader: int | None, within_us: int = 1) -> None:
        """These servers miss the leader, each of them at some time of its own."""
        for node in nodes:
            after_us = self.random.randrange(within_us)
            self.at(self.now + after_us, partial(self._suspect, NodeId(node), leader))

    def at(self, time: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._waiting, (time, self._order, happen))

    def send(self, source: int, to: int, body: bytes) -> None:
        """A message that may be lost or late; it gets through to living voters only."""
        self.note(f"{source} sends {to} {_shown(body)}")
        if self.random.random() >= self.loss:
            delay_us = self.random.randrange(100, 2_000)
            self.at(self.now + delay_us, partial(self._deliver, NodeId(source), NodeId(to), body))

    def run(self, until: int, stop: Callable[[], bool] = lambda: False) -> bool:
        """Step messages and deadlines in the order of time until `stop`, which is returned."""
        steps = 0
        while not (stopped := stop()) and (step := self._next()) is not None and step[0] <= until:
            steps += 1
            assert steps <= _STEPS_MAX, f"more than {steps - 1} messages and deadlines; " + (
                self.tale()
            )
            self.now = max(self.now, step[0])
            step[1]()
        if not stopped:
            self.now = until
        return stopped

    def run_until_nominated(self, within_us: int) -> bool:
        """Whether anybody that lives, and votes, is nominated in time."""
        return self.run(self.now + within_us, lambda: bool(self.nominated()))

    # --- what is known ------------------------------------------------------------------------

    def alive(self) -> list[NodeId]:
        return [node for node in self.elections if node not in self._dead]

    def nominated(self, since: int = 0) -> list[NodeId]:
        """The living among those nominated at or after a time, in order, each once."""
        whom = [each.whom for each in self.nominations if each.at >= since]
        return [node for node in dict.fromkeys(whom) if node not in self._dead]

    def tale(self) -> str:
        """The end of the story, for a failure's message."""
        return "\n".join(["what happened:", *self.lines[-_TALE_LINES:]])

    # --- how it happens -----------------------------------------------------------------------

    def note(self, line: str) -> None:
        self.lines.append(f"  {self.now / 1000:9.3f} ms  {line}")

    def call(
        self, node: int, ask: Callable[[Election], Iterable[ElectionAction]]
    ) -> list[ElectionAction]:
        """Call one election as the core does, and carry out what it returns."""
        source = NodeId(node)
        returned = ask(self.elections[source])
        assert returned is not None, f"it returned None instead of no actions; {self.tale()}"
        actions = list(returned)
        count = len(actions)
        assert count <= ACTIONS_MAX, (
            f"{count} actions of one call, of which the core heeds {ACTIONS_MAX}; {self.tale()}"
        )
        for action in actions:
            if isinstance(action, Nominate):
                self._nominate(source, action.node)
            else:
                self._send(source, action)
        return actions

    def _nominate(self, by: NodeId, whom: NodeId) -> None:
        self.note(f"{by} nominates {whom}")
        assert whom in self.voters[by], (
            f"{by} nominates {whom}, but has been told that {list(self.voters[by])} vote; "
            + self.tale()
        )
        self.nominations.append(Nomination(self.now, by, whom))
        if self.ordains:
            self.at(self.now + CAMPAIGN_US, partial(self._win, whom))

    def _send(self, source: NodeId, action: object) -> None:
        assert isinstance(action, SendElection), (
            f"{action!r} is neither Nominate nor SendElection; {self.tale()}"
        )
        body = action.body
        assert isinstance(body, bytes), f"a message's body is bytes, not {body!r}; {self.tale()}"
        assert len(body) <= BODY_BYTES_MAX, (
            f"a message of {len(body)} bytes: more than {BODY_BYTES_MAX} need not fit a datagram; "
            + self.tale()
        )
        self.sends.append((self.now, source, action))
        if action.to in self.voters[source] and action.to != source:  # the core drops others
            self.send(source, action.to, body)

    def _deliver(self, source: NodeId, to: NodeId, body: bytes) -> None:
        if to not in self._dead and source in self.voters[to]:
            self.note(f"{to} gets {_shown(body)} of {source}")
            self.call(to, lambda election: election.on_message(source, body, self.now))

    def _suspect(self, node: NodeId, leader: int | None) -> None:
        """As the core does: again after a while, and then there was no leader any more."""
        if node in self._dead or self.leader is not None or node not in self.voters[node]:
            return
        self._suspicious[node] = None
        self.note(f"{node} misses {'a leader' if leader is None else leader}")
        missed = None if leader is None else NodeId(leader)
        self.call(node, lambda election: election.on_suspect(missed, self.now))
        span_us = TIMING.suspect_floor_us
        after_us = span_us + self.random.randrange(span_us)
        self.at(self.now + after_us, partial(self._suspect_again, node))

    def _suspect_again(self, node: NodeId) -> None:
        if node in self._suspicious:
            self._suspect(node, None)

    def _win(self, nominee: NodeId) -> None:
        if nominee not in self._dead and self.leader is None:
            self.lead(nominee)

    def _next(self) -> tuple[int, Callable[[], None]] | None:
        """When the next thing happens, and what makes it happen."""
        best: tuple[int, Callable[[], None]] | None = None
        for node in self.alive():
            due = self.elections[node].deadline()
            assert due is None or isinstance(due, int), (
                f"a deadline is an int of microseconds or None, not {due!r}; {self.tale()}"
            )
            if due is not None and (best is None or due < best[0]):
                best = (due, partial(self._remind, node))
        if self._waiting and (best is None or self._waiting[0][0] <= best[0]):
            return self._waiting[0][0], self._take_waiting
        return best

    def _take_waiting(self) -> None:
        heappop(self._waiting)[2]()

    def _remind(self, node: NodeId) -> None:
        """A deadline has come. One that stays due would be called again and again."""
        self.reminders.append((self.now, node))
        self.call(node, lambda election: election.on_deadline(self.now))
        due = self.elections[node].deadline()
        assert due is None or due > self.now, (
            f"{node}'s deadline is {due} after on_deadline({self.now}): it is due for ever; "
            + self.tale()
        )


def _shown(body: bytes) -> str:
    return repr(body) if len(body) <= 24 else f"{body[:24]!r}… ({len(body)} bytes)"
