"""A handful of servers and a bad network for elections: no sockets, no real time, one seed.

It does to an election what the core does: suspects again while nobody leads, passes on messages
of voters only, and lets a nominee campaign, who wins if he lives (when the electorate `ordains`).
Whatever an election returns is checked at once against what it may return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
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
from distinv.testing.conformance.machines import Machines, shown

TIMING = Timing()
ANSWER_US = TIMING.election_answer_us

ACTIONS_MAX = 64
"""What the core heeds of one call."""
BODY_BYTES_MAX = 1_000
"""A message is one datagram, which is never split."""
CAMPAIGN_US = 20_000
"""Two exchanges and two writes to disk."""


@frozen
class Nomination:
    at: int
    by: NodeId
    whom: NodeId


class Electorate(Machines[Election, ElectionAction]):
    """Servers with the ids 1..`count`, all of them voters, alive and at rest at time 0.

    They suspect again while nobody leads, unless they are not `insistent`: then it is left to the
    elections themselves to get on.
    """

    def __init__(
        self,
        factory: ElectionFactory,
        count: int,
        *,
        seed: int = 0,
        loss: float = 0.0,
        delays_us: range = range(100, 2_000),
        ordains: bool = False,
        insistent: bool = True,
    ) -> None:
        super().__init__(seed)
        self.loss = loss
        self.delays_us = delays_us
        self.ordains = ordains
        self.insistent = insistent
        self.leader: NodeId | None = None
        self.nominations: list[Nomination] = []
        self.sends: list[tuple[int, NodeId, SendElection]] = []
        self.reminders: list[tuple[int, NodeId]] = []
        """Deadlines that came."""
        self.voters: dict[NodeId, tuple[NodeId, ...]] = {}
        """Of whom each server has been told."""
        self._dead: dict[NodeId, None] = {}
        self._suspicious: dict[NodeId, None] = {}
        self._term = 0
        self._factory = factory
        ids = [NodeId(number) for number in range(1, count + 1)]
        for node in ids:
            self.join(node, ids)

    # --- what happens -------------------------------------------------------------------------

    def join(self, node: int, voters: Sequence[int]) -> None:
        """`node` starts and is told who votes."""
        chance = Random(self.random.getrandbits(64))
        self.machines[NodeId(node)] = self._factory(ElectionContext(NodeId(node), chance, TIMING))
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

    def send(self, source: int, to: int, body: bytes) -> None:
        """A message that may be lost or late; it gets through to living voters only."""
        self.note(f"{source} sends {to} {shown(body)}")
        if self.random.random() >= self.loss:
            arrives = self.now + self.random.choice(self.delays_us)
            self.at(arrives, partial(self._deliver, NodeId(source), NodeId(to), body))

    def run_until_nominated(self, within_us: int) -> NodeId | None:
        """The first that lives and is nominated, None when nobody is in time."""
        self.run(self.now + within_us, lambda: bool(self.nominated()))
        return next(iter(self.nominated()), None)

    # --- what is known ------------------------------------------------------------------------

    def alive(self) -> list[NodeId]:
        return [node for node in super().alive() if node not in self._dead]

    def nominated(self, since: int = 0) -> list[NodeId]:
        """The living among those nominated at or after a time, in order, each once."""
        whom = [each.whom for each in self.nominations if each.at >= since]
        return [node for node in dict.fromkeys(whom) if node not in self._dead]

    # --- how it happens -----------------------------------------------------------------------

    def act(self, source: NodeId, actions: list[ElectionAction]) -> None:
        count = len(actions)
        assert count <= ACTIONS_MAX, (
            f"{count} actions of one call, of which the core heeds {ACTIONS_MAX}; {self.tale()}"
        )
        for action in actions:
            if isinstance(action, Nominate):
                self._nominate(source, action.node)
            else:
                self._send(source, action)

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
            self.note(f"{to} gets {shown(body)} of {source}")
            self.call(to, lambda election: election.on_message(source, body, self.now))

    def _suspect(self, node: NodeId, leader: int | None) -> None:
        """As the core does: again after a while, and then there was no leader any more."""
        if node in self._dead or self.leader is not None or node not in self.voters[node]:
            return
        self._suspicious[node] = None
        self.note(f"{node} misses {'a leader' if leader is None else leader}")
        missed = None if leader is None else NodeId(leader)
        self.call(node, lambda election: election.on_suspect(missed, self.now))
        if self.insistent:
            span_us = TIMING.suspect_floor_us
            after_us = span_us + self.random.randrange(span_us)
            self.at(self.now + after_us, partial(self._suspect_again, node))

    def _suspect_again(self, node: NodeId) -> None:
        if node in self._suspicious:
            self._suspect(node, None)

    def _win(self, nominee: NodeId) -> None:
        if nominee not in self._dead and self.leader is None:
            self.lead(nominee)

    def remind(self, node: NodeId) -> None:
        self.reminders.append((self.now, node))
        super().remind(node)
