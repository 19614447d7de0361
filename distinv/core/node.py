"""One server's consensus, without I/O: `step(event, now) -> effects`.

This file owns what every role shares (the promise, the log, the commit index) and all changes
of role; what a role does is in `follower.py`, `candidate.py` and `leader.py`. Time is an int of
microseconds handed in, chance an injected `random.Random`, durability an event fed back.

Where it leaves the textbooks is said in docs/protocol.md: ballots with owners and promises that
report positions (Viewstamped Replication Revisited, Liskov and Cowling 2012), the log rules of
Raft (Ongaro and Ousterhout 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

from distinv.config import Limits, Timing
from distinv.core import birth as birth_steps
from distinv.core.birth import Birth
from distinv.core.candidate import Candidate
from distinv.core.clocks import Clocks
from distinv.core.durability import Durability
from distinv.core.elector import Elector
from distinv.core.events import (
    Applied,
    BeaconSeen,
    Born,
    Commit,
    Effect,
    EndTurn,
    Event,
    InvariantBroken,
    LeaderChanged,
    LinkLost,
    NotAppended,
    PeerRefused,
    Persisted,
    Read,
    ReadFailed,
    Received,
    Send,
    SendEntries,
    Standing,
    Submit,
    Tell,
    TimeReached,
    Transfer,
)
from distinv.core.failure import FailureDetector, LocalHealth
from distinv.core.follower import Follower
from distinv.core.leader import Leader
from distinv.core.log import Log
from distinv.core.membership import Membership
from distinv.core.quorum import VoterSets, is_quorum
from distinv.core.reads import ReadQuestions
from distinv.election.api import Election
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    TERM_JUMP_MAX,
    Ballot,
    Entry,
    EntryKind,
    NodeId,
    encode_voters,
    make_entry,
)
from distinv.storage.api import (
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Recovered,
    TruncateRecord,
)
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    BallotRefused,
    BirthAnswer,
    BirthOffer,
    ElectionMessage,
    Heartbeat,
    HeartbeatAck,
    Join,
    NominateHint,
    Prepare,
    PrepareRefused,
    PreVote,
    PreVoteReply,
    Promise,
    Pull,
    PullReply,
    ReadIndex,
    ReadIndexReply,
    TransferOrder,
)

Role: TypeAlias = Follower | Candidate | Leader

_CAMPAIGN_DOUBLINGS_MAX = 3
"""A campaign is two exchanges and two writes, each of which may take a second (`disk_stall_us`)."""


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
    ) -> None:
        self.self_id = self_id
        self.server_name = server_name
        self.cluster_name = cluster_name
        self.timing = timing
        self.limits = limits
        self.random = random
        self.now = now
        self.preempt = preempt
        self.clock_offset_us = 0
        """Wall clock minus `now`; the driver sets it before a turn."""

        self.log = Log(recovered.entries, cache_bytes=limits.log_cache_bytes)
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
        self._commit_told = 0
        if applied > self.log.last_index:
            raise InvariantBroken(
                f"the store is at {applied}, the journal ends at {self.log.last_index}"
            )

        self.health = LocalHealth(timing)
        self.detector = FailureDetector(timing, self.health)
        self.clocks = Clocks(self_id, timing.max_clock_skew_us)
        self.leader: NodeId | None = None
        self.leader_ballot: Ballot = NO_BALLOT
        """The ballot of the leader followed last; it answers no Prepare of that ballot again."""
        self.elector = Elector(election_label, election, self_id, timing)
        self.questions = ReadQuestions()
        self.role: Role
        self.failed_campaigns = 0
        """Own and others' campaigns since a leader was last heard."""
        self.quiet_until = now
        """Another campaign has its time, or the own one failed: none is begun before."""
        self.forfeited = False
        """A campaign was left to a fresher server since a leader was last heard."""
        self.late_until = -timing.suspect_ceiling_us
        """Having slept, this node listens before it campaigns; but not again and again, or slow
        machines would never have a leader."""
        self._deadline: int | None = None
        self._deadline_known = False
        """Nothing was stepped since it was looked for."""
        self._checked = 0
        self._out: list[Effect] = []
        self.last_reprepare: int | None = None

        self.birth: Birth | None = None
        self._birth_ticket = 0
        """The write that makes what birth remembers durable."""
        self._identity_ticket = 0
        if recovered.node is None:
            self.record(IdentityRecord(self_id, cluster_name))
            self._identity_ticket = self.durability.open_ticket
        if not self.log.last_index:
            self.birth = Birth(
                self_id,
                server_name,
                cluster_name,
                expect,
                recovered.birth,
                timing=timing,
                limits=limits,
                random=random,
                now=now,
            )
        else:
            self.elector.on_members(self.voters(), now)
        self._last_heard: dict[NodeId, int] = {}
        """When each voter last said anything at all."""
        self.role = Follower(self)

    # --- the two calls of a driver ------------------------------------------------------------

    def step(self, event: Event, now: int) -> list[Effect]:
        """Take one event in; returns what is to be done, in order."""
        if now > self.now:
            self.now = now
        _EVENTS[type(event)](self, event)
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

    def _due(self) -> int | None:
        """The same, but for the election: a plugin's times say nothing about this process."""
        return self.role.deadline() if self.birth is None else self.birth.deadline()

    # --- what roles use -----------------------------------------------------------------------

    @property
    def clock_us(self) -> int:
        return self.now + self.clock_offset_us

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

    def other_voters(self) -> tuple[NodeId, ...]:
        return tuple(node for node in self.voters() if node != self.self_id)

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
            self._tell_elector()

    def adopt(self, previous: int, entries: tuple[Entry, ...]) -> None:
        """Take over verified entries behind `previous`, truncating only on a conflict."""
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
        self._tell_elector()
        self.tell(f"dropped uncommitted entries after {index}", "debug")

    def advance_commit(self, index: int) -> None:
        """`index` is committed; hand over what is durable here as well (invariant 7)."""
        if index > self.commit:
            self.commit = index
            self._tell_elector()
        usable = min(self.commit, self.durability.durable_index)
        if usable > self._commit_told and usable > self.applied:
            self._commit_told = usable
            self.emit(Commit(usable))

    def _tell_elector(self) -> None:
        """The voters in play may be others: an entry came, was truncated, or is now committed."""
        voters = self.voters()
        if voters != self.elector.members:
            self.elector.on_members(voters, self.now)

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
        heard = [node for node, at in self._last_heard.items() if at > since]
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
            self.failed_campaigns = 0
            self.forfeited = False
            self.quiet_until = self.now  # whoever had that time leads
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
        self.tell(f"starting an election: {why}")
        candidate = Candidate(self, ordered_by, above)
        self.role = candidate
        candidate.start(skip_pre_vote)

    def become_leader(self, ballot: Ballot) -> None:
        """A quorum has promised `ballot` and the log is the most up-to-date of theirs."""
        if ballot != self.promised or ballot.node != self.self_id:
            raise InvariantBroken(f"cannot lead in {ballot}, promised {self.promised}")
        self.leader = self.self_id
        self.leader_ballot = ballot
        self.failed_campaigns = 0
        self.tell(f"leading in term {ballot.term} from entry {self.log.last_index + 1} on")
        leader = Leader(self, ballot)
        self.role = leader
        leader.start()
        self.emit(LeaderChanged(self.self_id, ballot, False))
        self.elector.on_leader(self.self_id, ballot, self.now)

    def _leave_role(self, old: Role) -> None:
        """What waited for the old role is told that it waits in vain."""
        queue = old.take_queue() if isinstance(old, Leader) else ()
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
            and self.now >= max(self.late_until, self.quiet_until)
        )

    def patience_us(self, time_us: int) -> int:
        """`time_us`, doubled with every campaign that failed: however slow the disks and the
        network are, some campaign has time enough."""
        return time_us << min(self.failed_campaigns, _CAMPAIGN_DOUBLINGS_MAX)

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

    # --- events -------------------------------------------------------------------------------

    def _on_received(self, event: Received) -> None:
        handler = _MESSAGES.get(type(event.message))
        if handler is not None and event.source != self.self_id:
            if self.is_voter(event.source):
                self._last_heard[event.source] = self.now
            handler(self, event.source, event.message)

    def _on_beacon(self, event: BeaconSeen) -> None:
        beacon = event.beacon
        if beacon.cluster_name != self.cluster_name or event.source == self.self_id:
            return
        if self.birth is not None:
            self._do_birth(self.birth.on_beacon(event.source, beacon, self.now))
        if beacon.cluster_id and beacon.leader == event.source and self.wants_log():
            self.send(event.source, Join(self.server_name))

    @property
    def identified(self) -> bool:
        """Its id is durable. Until then nobody may know it: one that vanishes in a crash would
        keep its seat in a cluster proposed meanwhile."""
        return self._identity_ticket <= self.durability.durable_ticket

    def wants_log(self) -> bool:
        """No voter (as far as its log tells), and no leader that sends it the log."""
        return not self.is_voter(self.self_id) and not self.hears_leader()

    def _on_persisted(self, event: Persisted) -> None:
        before = self.durability.durable_index
        for effect in self.durability.persisted(event.ticket, self.now):
            self.emit(effect)
        if self.birth is not None and self._birth_ticket <= self.durability.durable_ticket:
            self._do_birth(self.birth.on_durable())
        self.role.on_persisted(self.durability.durable_index > before)
        self.advance_commit(self.commit)

    def _on_applied(self, event: Applied) -> None:
        self.applied = event.index
        self.log.evict_bodies(event.index)
        if isinstance(self.role, Leader):
            self.role.maybe_serve()

    def _on_submit(self, event: Submit) -> None:
        if isinstance(self.role, Leader):
            self.role.submit(event.command)
        else:
            self.emit(NotAppended((event.command,), "not_leader"))

    def _on_read(self, event: Read) -> None:
        self.role.read(event.ticket)

    def _on_link_lost(self, event: LinkLost) -> None:
        if isinstance(self.role, Leader):
            self.role.on_link_lost(event.peer)

    def _on_refused(self, event: PeerRefused) -> None:
        if event.peer == self.leader and isinstance(self.role, Follower):
            self.detector.refused_at = self.now

    def _on_transfer(self, event: Transfer) -> None:
        if isinstance(self.role, Leader):
            self.role.transfer_to(event.target)

    def _on_time(self, event: TimeReached) -> None:
        due = self._due()
        late_us = 0 if due is None else self.health.observe(due, self.now)
        if late_us:
            # This process slept: whoever seems silent may have spoken to nobody.
            self.detector.excuse(late_us, self.now)
            self.durability.excuse(late_us, self.now)
            if self.now - self.late_until > self.timing.suspect_ceiling_us:
                self.late_until = self.now + self.timing.heartbeat_us
            self.role.excuse(late_us)
        if self.birth is not None:
            self._do_birth(self.birth.on_deadline(self.now))
        else:
            self.elector.on_deadline(self.now)
        self.role.on_time()

    def _on_end_turn(self, event: EndTurn) -> None:
        self.role.end_turn()
        write = self.durability.take_write(self.log.last_index, self.now)
        if write is not None:
            self.emit(write)

    # --- birth --------------------------------------------------------------------------------

    def _do_birth(self, actions: list[birth_steps.BirthAction]) -> None:
        for action in actions:
            if isinstance(action, birth_steps.Remember):
                self.record(action.record)
                self._birth_ticket = self.durability.open_ticket
            elif isinstance(action, (birth_steps.Answer, birth_steps.Offer)):
                self.hold(Send(action.to, action.message))
            elif isinstance(action, birth_steps.Say):
                self.tell(action.text, action.level)
            else:
                self._be_born(action.proposal)

    def _be_born(self, proposal: Any) -> None:
        """The cluster exists: its first entry is the proposal, the same on every server."""
        names = ", ".join(voter.name for voter in proposal.voters)
        self.tell(f"cluster {proposal.cluster_name!r} is born with the voters {names}")
        self.append(make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(proposal)))
        self._settle_birth(proposal.cluster_id)
        self.commit = 1
        if isinstance(self.role, Follower) and self.leader is None:
            self.role.call_election()  # nobody can have led yet, as far as this server knows

    def _settle_birth(self, cluster_id: int) -> None:
        self.birth = None
        self.record(BirthRecord(None, ()))
        self.emit(Born(cluster_id))

    def _on_birth_offer(self, source: NodeId, message: BirthOffer) -> None:
        if self.birth is not None:
            self._do_birth(self.birth.on_offer(source, message.proposal, self.now))
            return
        # One that has not noticed. Who belongs to a cluster accepts no other proposal any more;
        # the log that says so has to be durable first.
        current, proposal = self.membership.current(), message.proposal
        if current is not None and proposal.cluster_name == self.cluster_name:
            same = proposal.cluster_id == current.cluster_id
            self.hold(Send(source, BirthAnswer(proposal.cluster_id, same, None)))

    def _on_birth_answer(self, source: NodeId, message: BirthAnswer) -> None:
        if self.birth is not None:
            self._do_birth(self.birth.on_answer(source, message, self.now))

    # --- votes --------------------------------------------------------------------------------

    def _on_pre_vote(self, source: NodeId, message: PreVote) -> None:
        granted = not self.hears_leader()
        leader = 0 if granted else self.leader or 0
        self.send(source, PreVoteReply(message.number, granted, self.promised, leader))

    def _acceptable(self, source: NodeId, ballot: Ballot) -> bool:
        """Invariant 1: a ballot has one owner; and no term out of the blue.

        One out of reach is approached by a step, which promises nothing to anybody: a server that
        was away while the terms leapt, and every new one, would else be left behind for good.
        """
        if ballot.node != source:
            return False
        reach = self.promised.term + TERM_JUMP_MAX
        if ballot.term > reach and not self.hears_leader():
            self.raise_promise(Ballot(reach, 0))
            self.become_follower(None, self.leader_ballot)
        return ballot.term <= reach

    def _on_prepare(self, source: NodeId, message: Prepare) -> None:
        ballot = message.ballot
        if not self._acceptable(source, ballot):
            return
        if ballot == self.promised:
            # Repeated answers are identical; in office, a leader needs none.
            if self.last_promise is not None and self.leader_ballot != ballot:
                self.hold_for_promise(Send(source, self.last_promise))
            return
        sticky = (
            self.hears_leader()
            and source != self.leader
            and (message.ordered_by == NO_BALLOT or message.ordered_by != self.leader_ballot)
        )
        if ballot < self.promised or sticky:
            heard = self.leader if self.hears_leader() and self.leader is not None else 0
            self.send(source, PrepareRefused(ballot, self.promised, heard))
            return
        self.raise_promise(ballot)
        grace_us = self.patience_us(self.timing.campaign_us)
        self.failed_campaigns += 1
        self.quiet_until = self.now + grace_us
        self.become_follower(None, ballot, grace_us)
        self.last_promise = Promise(
            ballot, self.log.last, self.commit, self.clock_us, self.membership.describe(self.commit)
        )
        self.hold(Send(source, self.last_promise))

    def _refuse(self, source: NodeId, ballot: Ballot) -> None:
        """Answer a leader whose ballot is below the promise."""
        heard = self.leader if self.leader_ballot == self.promised and self.hears_leader() else None
        self.send(source, BallotRefused(ballot, self.promised, heard or 0))

    def _on_ballot_refused(self, source: NodeId, message: BallotRefused) -> None:
        if message.ballot != self.promised or message.promised <= message.ballot:
            return
        self.role.on_ballot_refused(source, message)

    # --- a leader speaks ----------------------------------------------------------------------

    def _follow(self, source: NodeId, ballot: Ballot) -> Follower | None:
        """Follow the leader of `ballot`; None when it is not to be followed."""
        if not self._acceptable(source, ballot):
            return None
        if ballot < self.promised:
            self._refuse(source, ballot)
            return None
        if ballot > self.promised:
            self.raise_promise(ballot)
        role = self.role
        if not isinstance(role, Follower) or self.leader != source or self.leader_ballot != ballot:
            self.become_follower(source, ballot)
        self.detector.heard(self.now)
        assert isinstance(self.role, Follower)
        return self.role

    def _on_heartbeat(self, source: NodeId, message: Heartbeat) -> None:
        follower = self._follow(source, message.ballot)
        if follower is not None:
            follower.on_heartbeat(message)

    def _on_append(self, source: NodeId, message: Append) -> None:
        follower = self._follow(source, message.ballot)
        if follower is not None:
            follower.on_append(message)
            if self.birth is not None and self.log.last_index:
                current = self.membership.current()
                assert current is not None
                self._settle_birth(current.cluster_id)

    def _on_pull(self, source: NodeId, message: Pull) -> None:
        """Anybody who holds the log that is asked for may send it."""
        until = self.log.position(message.until_index)
        after = message.after
        if until is None or until.ballot != message.until_ballot:
            self.send(source, PullReply(message.ballot, after, (), False, 0))
        elif not self.log.holds(after):
            conflict = self.log.position(after.index) is not None
            matches = self.log.guess_match(after.index - conflict, after.ballot)
            self.send(source, PullReply(message.ballot, after, (), True, matches))
        else:
            self.emit(SendEntries(source, message.ballot, after, message.until_index, True))

    # --- messages for one role only -----------------------------------------------------------

    def _on_election(self, source: NodeId, message: ElectionMessage) -> None:
        self.elector.on_message(source, message, self.now)

    def _on_hint(self, source: NodeId, message: NominateHint) -> None:
        if source == self.promised.node:
            self.quiet_until = self.now  # it leaves its own campaign to this server
        if self.is_voter(source) and self.may_campaign():
            self.become_candidate(f"{self.name_of(source)} nominates this server")

    def _for_follower(self, source: NodeId, message: Any) -> None:
        if isinstance(self.role, Follower) and source == self.leader:
            self.role.on_message(message)

    def _for_candidate(self, source: NodeId, message: Any) -> None:
        if isinstance(self.role, Candidate):
            self.role.on_message(source, message)

    def _for_leader(self, source: NodeId, message: Any) -> None:
        if isinstance(self.role, Leader):
            self.role.on_message(source, message)

    # --- what people and checkers see ---------------------------------------------------------

    @property
    def standing(self) -> Standing:
        if self.birth is not None:
            return Standing.BLANK
        if isinstance(self.role, Leader):
            return Standing.LEADER
        return Standing.CANDIDATE if isinstance(self.role, Candidate) else Standing.FOLLOWER

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
        if self._checked > last:
            self._checked = last
        while self._checked < last:
            before, after = log.position(self._checked), log.position(self._checked + 1)
            assert before is not None
            assert after is not None
            assert before.ballot <= after.ballot, "ballots decrease along the log"
            self._checked += 1


_EVENTS: dict[type, Callable[[Node, Any], None]] = {
    Received: Node._on_received,
    BeaconSeen: Node._on_beacon,
    Persisted: Node._on_persisted,
    Applied: Node._on_applied,
    Submit: Node._on_submit,
    Read: Node._on_read,
    LinkLost: Node._on_link_lost,
    PeerRefused: Node._on_refused,
    Transfer: Node._on_transfer,
    TimeReached: Node._on_time,
    EndTurn: Node._on_end_turn,
}

_MESSAGES: dict[type, Callable[[Node, NodeId, Any], None]] = {
    BirthOffer: Node._on_birth_offer,
    BirthAnswer: Node._on_birth_answer,
    ElectionMessage: Node._on_election,
    NominateHint: Node._on_hint,
    PreVote: Node._on_pre_vote,
    Prepare: Node._on_prepare,
    BallotRefused: Node._on_ballot_refused,
    Heartbeat: Node._on_heartbeat,
    Append: Node._on_append,
    Pull: Node._on_pull,
    ReadIndexReply: Node._for_follower,
    TransferOrder: Node._for_follower,
    PreVoteReply: Node._for_candidate,
    Promise: Node._for_candidate,
    PrepareRefused: Node._for_candidate,
    PullReply: Node._for_candidate,
    Join: Node._for_leader,
    HeartbeatAck: Node._for_leader,
    AppendAck: Node._for_leader,
    AppendMismatch: Node._for_leader,
    ReadIndex: Node._for_leader,
}
