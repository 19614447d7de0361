"""One server's consensus, without I/O: `step(event, now) -> effects`.

This file owns what every role shares (the promise, the log, the commit index) and all changes
of role; what a role does is in `follower.py`, `candidate.py` and `leader.py`, who gets an event
or a message in `handlers.py`. Time is an int of microseconds handed in, chance an injected
`random.Random`, durability an event fed back.

Where it leaves the textbooks is said in docs/protocol.md: ballots with owners and promises that
report positions (Viewstamped Replication Revisited, Liskov and Cowling 2012), the log rules of
Raft (Ongaro and Ousterhout 2014).
"""

from __future__ import annotations

from random import Random
from typing import Any, TypeAlias

from distinv.config import Limits, Timing
from distinv.core.birth import Birth
from distinv.core.campaigns import Campaigns
from distinv.core.candidate import Candidate
from distinv.core.clocks import Clocks
from distinv.core.durability import Durability
from distinv.core.elector import Elector
from distinv.core.events import (
    Commit,
    Effect,
    EndTurn,
    Event,
    InvariantBroken,
    LeaderChanged,
    MembersChanged,
    NotAppended,
    ReadFailed,
    Send,
    Standing,
    Tell,
)
from distinv.core.failure import FailureDetector, LocalHealth
from distinv.core.follower import Follower
from distinv.core.handlers import EVENTS
from distinv.core.leader import Leader
from distinv.core.log import Log
from distinv.core.membership import Membership
from distinv.core.quorum import VoterSets, is_quorum
from distinv.core.reads import ReadQuestions
from distinv.election.api import Election
from distinv.entry import (
    NO_BALLOT,
    Ballot,
    Entry,
    EntryKind,
    NodeId,
)
from distinv.storage.api import (
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Recovered,
    TruncateRecord,
)
from distinv.wire.frame import SPEAKS
from distinv.wire.messages import (
    NominateHint,
    Promise,
)

Role: TypeAlias = Follower | Candidate | Leader


class Node:
    """The consensus state of one server. Fields are public to the roles and to `check()`."""

    def __init__(
        self,
        *,
        self_id: NodeId,
        server_name: str,
        cluster_name: str,
        expect: int,
        recovered: Recovered,
        applied: int,
        election_label: str,
        election: Election,
        timing: Timing,
        limits: Limits,
        random: Random,
        now: int,
        preempt: bool = False,
        protocol: int = SPEAKS[1],
        touched: bool = True,
        joins: int = 0,
    ) -> None:
        """`touched`: the store may hold something of clients. `joins`: a blank server knows
        already which cluster it is going to join."""
        self.self_id = self_id
        self.server_name = server_name
        self.cluster_name = cluster_name
        self.timing = timing
        self.limits = limits
        self.random = random
        self.now = now
        self.preempt = preempt
        self.protocol = protocol
        """The newest that this server speaks."""
        self._abstains_from: int | None = None
        """It was removed by order: a leader may give it a vote by order only, with a voter set
        above this index. Nothing durable: who starts it again wants it back."""
        self.log = Log(recovered.entries, cache_bytes=limits.log_cache_bytes, base=recovered.base)
        self._touched = touched
        self.membership = Membership(self.log)
        self.durability = Durability(self.log.last_index)
        self.promised: Ballot = recovered.promised
        """Invariant 2: never decreases, durable before anybody hears of it."""
        self.promise_ticket = 0
        """The write that makes `promised` durable."""
        self.last_promise: Promise | None = None
        self.commit = max(applied, min(1, self.log.last_index))
        """Invariant 8: never decreases, nothing at or below it is truncated. Entry 1 is
        committed by the birth contract before any log holds it."""
        self.applied = applied
        self.commit_told = 0
        self._check_applied()

        self.health = LocalHealth(timing)
        self.detector = FailureDetector(timing, self.health)
        self.clocks = Clocks(self_id, timing.max_clock_skew_us)
        """The driver sets its `own_offset_us` before a turn: wall clock minus `now`."""
        self.leader: NodeId | None = None
        self.leader_ballot: Ballot = NO_BALLOT
        """The ballot of the leader followed last; it answers no Prepare of that ballot again."""
        self.elector = Elector(election_label, election, self_id, timing)
        self.questions = ReadQuestions()
        self.role: Role
        self.campaigns = Campaigns(now, -timing.suspect_ceiling_us)
        self._deadline: int | None = None
        self._deadline_known = False
        """Nothing was stepped since it was looked for."""
        self._checked = 0
        self._out: list[Effect] = []
        self.last_reprepare: int | None = None

        self.birth: Birth | None = None
        self.birth_ticket = 0
        """The write that makes what birth remembers durable."""
        self.identity_ticket = 0
        if recovered.node is None:
            self.record(IdentityRecord(self_id, cluster_name))
            self.identity_ticket = self.durability.open_ticket
        if self.log.last.ballot > self.promised:
            # A snapshot took the place of the store, and the crash came before what that implies
            # was written as well.
            self.raise_promise(self.log.last.ballot)
        if self.log.last_index:
            self.elector.on_members(self.voters(), now)
        else:
            self.birth = Birth(
                *(self_id, server_name, cluster_name, expect, recovered.birth),
                timing=timing,
                limits=limits,
                random=random,
                now=now,
                joins=joins,
            )
        self.voters_heard: dict[NodeId, int] = {}
        """When each voter last said anything at all."""
        self.role = Follower(self)

    def _check_applied(self) -> None:
        """Raises InvariantBroken."""
        base, end = self.log.base.index, self.log.last_index
        if self.applied < base:
            raise InvariantBroken(
                f"the store is at {self.applied}, the journal begins after {base}"
            )
        if self.applied > end:
            raise InvariantBroken(f"the store is at {self.applied}, the journal ends at {end}")

    # --- the two calls of a driver ------------------------------------------------------------

    def step(self, event: Event, now: int) -> list[Effect]:
        """Take one event in; returns what is to be done, in order."""
        if now > self.now:
            self.now = now
        EVENTS[type(event)](self, event)
        if self.elector.was_called:
            self._heed_elector()
        out, self._out = self._out, []
        if out or type(event) is not EndTurn:  # a turn that ends in nothing moves no deadline
            self._deadline_known = False
        return out

    def deadline(self) -> int | None:
        """When `TimeReached` is due."""
        if not self._deadline_known:
            self._deadline = self._earliest()
            self._deadline_known = True
        return self._deadline

    def _earliest(self) -> int | None:
        if self.birth is not None:
            return self.birth.deadline()
        due, election = self.role.deadline(), self.elector.deadline()
        if due is None or election is None:
            return election if due is None else due
        return min(due, election)

    def own_deadline(self) -> int | None:
        """The same, but for the election: a plugin's times say nothing about this process."""
        return self.role.deadline() if self.birth is None else self.birth.deadline()

    # --- what roles use -----------------------------------------------------------------------

    @property
    def clock_us(self) -> int:
        return self.now + self.clocks.own_offset_us

    def emit(self, effect: Effect) -> None:
        self._out.append(effect)

    def send(self, to: NodeId, message: Any) -> None:
        self._out.append(Send(to, message))

    def hold(self, effect: Effect) -> None:
        """Emit once everything recorded so far is durable."""
        ready = self.durability.hold(effect)
        if ready is not None:
            self._out.append(ready)

    def hold_for_promise(self, effect: Effect) -> None:
        """Emit once the promise in force is durable, whatever else is still being written."""
        if self.promise_ticket > self.durability.durable_ticket:
            self.hold(effect)
        else:
            self._out.append(effect)

    def tell(self, text: str, level: str = "info") -> None:
        self._out.append(Tell(level, text))

    def record(self, record: Any) -> None:
        self.durability.record(record)

    def sets(self) -> VoterSets:
        return self.membership.sets(self.commit)

    def voters(self) -> tuple[NodeId, ...]:
        """Everybody in a set in play, ascending; this server may be among them."""
        return self.membership.voters(self.commit)

    @property
    def voters_index(self) -> int:
        """Where the last voter set of the log stands, 0 before the first."""
        return self.log.voter_indexes[-1] if self.log.voter_indexes else 0

    def other_voters(self) -> tuple[NodeId, ...]:
        return tuple(node for node in self.voters() if node != self.self_id)

    @property
    def touched(self) -> bool:
        """This cluster may hold client commands: a server that says so goes on saying it."""
        return self._touched or self.log.held_commands

    def touch(self) -> None:
        """Something of clients has come by a snapshot."""
        self._touched = True

    def is_voter(self, node: NodeId) -> bool:
        return node in self.voters()

    def name_of(self, node: NodeId) -> str:
        """A name for people: of a voter its own, of another server its id."""
        current = self.membership.current()
        for voter in current.voters if current is not None else ():
            if voter.node == node:
                return voter.name
        return f"{node:016x}"

    def raise_promise(self, ballot: Ballot) -> None:
        """Take part in nothing below `ballot` from now on; durable with this turn's write."""
        if ballot <= self.promised:
            raise InvariantBroken(f"promise {ballot} is not above {self.promised}")
        self.promised = ballot
        self.last_promise = None
        self.record(PromiseRecord(ballot))
        self.promise_ticket = self.durability.open_ticket

    def append(self, entry: Entry) -> None:
        """The next entry of the log; durable with this turn's write."""
        self.log.append(entry)
        self.record(EntryRecord(entry))
        if entry.kind == EntryKind.VOTERS:
            self.tell_elector()

    def adopt(self, entries: tuple[Entry, ...]) -> None:
        """Take over verified entries, truncating only on a conflict."""
        for entry in entries:
            own = self.log.position(entry.index)
            if own is not None:
                if own.hash == entry.hash:
                    continue
                self._truncate(entry.index - 1)
            self.append(entry)

    def _truncate(self, index: int) -> None:
        if index < self.commit:
            raise InvariantBroken(
                f"asked to drop entries after {index}, but {self.commit} is committed"
            )
        self.log.truncate(index)
        self.durability.truncated(index)
        self.record(TruncateRecord(index))
        self.tell_elector()
        self.tell(f"dropped uncommitted entries after {index}", "debug")

    def advance_commit(self, index: int) -> None:
        """`index` is committed; hand over what is durable here as well (invariant 7)."""
        if index > self.commit:
            self.commit = index
            self.tell_elector()
        usable = min(self.commit, self.durability.durable_index)
        if usable > self.commit_told and usable > self.applied:
            self.commit_told = usable
            self.emit(Commit(usable))

    def tell_elector(self) -> None:
        """The voters in play may be others: an entry came, was truncated, or is now committed."""
        self._heed_promotion()
        voters = self.voters()
        if voters != self.elector.members:
            self.voters_heard = {
                node: at for node, at in self.voters_heard.items() if node in voters
            }
            self.elector.on_members(voters, self.now)
            self.emit(MembersChanged())

    @property
    def identified(self) -> bool:
        """Its id is durable. Until then nobody may know it: one that vanishes in a crash would
        keep its seat in a cluster proposed meanwhile."""
        return self.identity_ticket <= self.durability.durable_ticket

    def wants_log(self) -> bool:
        """No leader sends it the log. It may be a voter by its own log, and have been voted out:
        nobody tells it but a leader, and none has it on its list."""
        return not self.hears_leader()

    @property
    def abstains(self) -> bool:
        """It goes without a vote until it is promoted by order, or started again."""
        return self._abstains_from is not None

    def abstain(self, voters_index: int) -> None:
        """It was removed by order, and no voter set up to this index gives it a vote."""
        if not self.abstains:
            self.tell("was removed by order: goes on as a replica, and takes no vote by itself")
        self._abstains_from = voters_index
        self._heed_promotion()

    def _heed_promotion(self) -> None:
        given = self.voters_index
        since = self._abstains_from
        if since is not None and since < given <= self.commit and self.is_voter(self.self_id):
            self._abstains_from = None

    @property
    def stalled(self) -> bool:
        """Its disk has not finished a write for so long that it counts as dead."""
        return self.durability.oldest_write_us(self.now) > self.timing.disk_stall_us

    def hears_leader(self) -> bool:
        """Somebody leads, as far as this node can tell: no reason for another leader."""
        if isinstance(self.role, Leader):
            return True
        return self.leader is not None and self.detector.hears(self.now)

    def hears_quorum(self) -> bool:
        """A majority of the voters is there, whether or not it has a leader."""
        since = self.now - self.timing.suspect_ceiling_us
        heard = [node for node, at in self.voters_heard.items() if at > since]
        return is_quorum(self.sets(), [self.self_id, *heard])

    # --- changes of role: all of them are here ------------------------------------------------

    def become_follower(self, leader: NodeId | None, ballot: Ballot, grace_us: int = 0) -> None:
        """Follow `leader` in `ballot`, or wait for one to appear, at least for `grace_us`."""
        old = self.role
        self._leave_role(old)
        changed = leader != self.leader or (leader is not None and ballot != self.leader_ballot)
        self.leader = leader
        self.detector.reset()
        if leader is not None:
            self.leader_ballot = ballot
            self.campaigns.on_leader(self.now)
            self.detector.heard(self.now)
        self.role = Follower(self, grace_us)
        if changed or isinstance(old, Leader):
            self.emit(LeaderChanged(leader, ballot, False))
        if leader is not None and changed:
            self.tell(f"following {self.name_of(leader)} in term {ballot.term}")
            self.elector.on_leader(leader, ballot, self.now)

    def become_candidate(
        self, why: str, ordered_by: Ballot = NO_BALLOT, above: Ballot = NO_BALLOT
    ) -> None:
        """Campaign. With `ordered_by` (a hand-over) or after leading, without a pre-vote."""
        old = self.role
        self._leave_role(old)
        skip_pre_vote = isinstance(old, Leader) or ordered_by != NO_BALLOT
        if self.leader is not None:
            self.leader = None
            self.emit(LeaderChanged(None, self.promised, False))
        self.campaigns.turn_at = None
        self.tell(f"starting an election: {why}")
        self.clocks.begin()
        candidate = Candidate(self, ordered_by, above)
        self.role = candidate
        candidate.start(skip_pre_vote)

    def become_leader(self, ballot: Ballot) -> None:
        """A quorum has promised `ballot` and the log is the most up-to-date of theirs."""
        if ballot != self.promised or ballot.node != self.self_id:
            raise InvariantBroken(f"cannot lead in {ballot}, promised {self.promised}")
        self.leader = self.self_id
        self.leader_ballot = ballot
        self.campaigns.failed = 0
        self.tell(f"leading in term {ballot.term} from entry {self.log.last_index + 1} on")
        leader = Leader(self, ballot)
        self.role = leader
        leader.start()
        self.emit(LeaderChanged(self.self_id, ballot, False))
        self.elector.on_leader(self.self_id, ballot, self.now)

    def _leave_role(self, old: Role) -> None:
        """What waited for the old role is told that it waits in vain."""
        if isinstance(old, Leader):
            old.changes.abandon()
            queue = old.take_queue()
            if queue:
                self.emit(NotAppended(queue, "no_leader"))
        tickets = old.reads.abandon()
        if tickets:
            self.emit(ReadFailed(tickets, "no_leader"))

    def may_campaign(self) -> bool:
        """A voter of this log that runs on time and hears no leader."""
        return (
            self.birth is None
            and isinstance(self.role, Follower)
            and self.is_voter(self.self_id)
            and not self.hears_leader()
            and self.now >= max(self.campaigns.late_until, self.campaigns.quiet_until)
        )

    def _heed_elector(self) -> None:
        self.elector.was_called = False
        for effect in self.elector.take_effects():
            nominates = isinstance(effect, Send) and isinstance(effect.message, NominateHint)
            if not (nominates and isinstance(self.role, Candidate)):
                self._out.append(effect)  # who campaigns itself nominates nobody else
        why, self.elector.nominated = self.elector.nominated, None
        if why is not None and self.may_campaign():
            self.become_candidate(why)
            self._out.extend(self.elector.take_effects())

    # --- what people and checkers see ---------------------------------------------------------

    @property
    def standing(self) -> Standing:
        if self.birth is not None:
            return Standing.BLANK
        if isinstance(self.role, Leader):
            return Standing.LEADER
        return Standing.CANDIDATE if isinstance(self.role, Candidate) else Standing.FOLLOWER

    @property
    def cluster_protocol(self) -> int:
        """While leading: the newest that every server of the cluster is known to speak."""
        return self.role.gate.protocol if isinstance(self.role, Leader) else SPEAKS[0]

    @property
    def serving(self) -> bool:
        """This node leads and may answer clients."""
        return isinstance(self.role, Leader) and self.role.serving

    def check(self) -> None:
        """Assert what must hold after every step; cheap enough to run after each."""
        log, role, promised = self.log, self.role, self.promised
        last, applied, durable = log.last_index, self.applied, self.durability.durable_index
        assert promised >= log.last.ballot, "an entry above the promise"
        assert promised >= self.leader_ballot, "follows a ballot above the promise"
        assert applied <= self.commit <= last, "applied, commit, last out of order"
        assert applied <= durable <= last, "applied, durable, last out of order"
        role.check()
        if isinstance(role, Leader):
            assert self.leader == self.self_id
        self._checked = max(log.base.index, min(self._checked, last))
        while self._checked < last:
            before, after = log.position(self._checked), log.position(self._checked + 1)
            assert before is not None
            assert after is not None
            assert before.ballot <= after.ballot, "ballots decrease along the log"
            self._checked += 1
