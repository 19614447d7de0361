"""A server in office: it orders, replicates, commits, and knows when it must stop.

Batches go to every follower that keeps up by one multicast; one that does not is brought back
by itself (probe, then chunks) and never holds the others: the leader waits for a quorum, not
for the slowest. Entries commit by counting only once the no-op of its own ballot does
(invariant 4).
"""

from __future__ import annotations

from collections.abc import ItemsView
from typing import TYPE_CHECKING, Any

from distinv.core.changes import Changes
from distinv.core.events import (
    LeaderChanged,
    MembersChanged,
    Multicast,
    NotAppended,
    ReadFailed,
    ReadReady,
    SendEntries,
)
from distinv.core.gate import Gate
from distinv.core.hand_over import HandOver
from distinv.core.progress import Mode, Progress
from distinv.core.quorum import is_quorum, quorum_value
from distinv.core.reads import ReadRounds
from distinv.entry import (
    TERM_JUMP_MAX,
    Ballot,
    EntryKind,
    NodeId,
    Successor,
    encode_successor,
    make_entry,
)
from distinv.wire.batch import LogCommand, OpenCommand, SessionCommand, encode_batch
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    BallotRefused,
    Behind,
    Heartbeat,
    HeartbeatAck,
    Join,
    ReadIndex,
    ReadIndexReply,
)

if TYPE_CHECKING:
    from distinv.core.node import Node

WRITES_UNDER_WAY = 1
"""The next batch forms while the last one syncs: more writes at once would only be smaller."""


class Leader:
    def __init__(self, node: Node, ballot: Ballot) -> None:
        self._node = node
        self.ballot = ballot
        self.reads = ReadRounds()
        self.serving = False
        """The no-op is committed and applied: clients may be answered."""
        self._noop_index = node.log.last_index + 1
        self._peers: dict[NodeId, Progress] = {
            peer: Progress(Mode.STREAM, node.now, node.now, streams_since=node.now)
            for peer in node.other_voters()
        }
        self._heartbeat_at = node.now
        self._look_at = node.now
        """When to look after the quorum and the disk again. Reads send heartbeats of their own:
        what put those off must not put this off as well."""
        self._queue: list[LogCommand] = []
        self.hand_over = HandOver(node, self)
        self._missing: tuple[NodeId, ...] = ()
        self._clock_alarm_at = -1_000_000_000
        self._questions: dict[int, tuple[NodeId, int]] = {}
        """Followers' numbered questions for a read index, by the ticket they wait under."""
        self._next_question = -1
        self.changes = Changes(node, self)
        self.gate = Gate(node, self)

    def start(self) -> None:
        """Append the no-op. It carries the log's last time: no clock is known good yet."""
        self._append(EntryKind.NOOP, b"", self._node.log.last_time_us)
        self._beat()

    # --- ordering -----------------------------------------------------------------------------

    def submit(self, command: LogCommand) -> None:
        """Queue a command for the next batch."""
        if self._node.log.dissolved is not None:
            self._node.emit(NotAppended((command,), "no_leader"))
            return
        self._queue.append(command)

    def take_queue(self) -> tuple[LogCommand, ...]:
        queue, self._queue = tuple(self._queue), []
        return queue

    @property
    def queued(self) -> bool:
        """Commands were accepted that are not in the log yet."""
        return bool(self._queue)

    def end_turn(self) -> None:
        node = self._node
        if self._queue and self.serving and node.durability.writing < WRITES_UNDER_WAY:
            self._append_batches()
        if self.reads.next_round(node.now, node.timing.read_round_us):
            self._beat()
            self._confirm_reads()

    def _append_batches(self) -> None:
        limits = self._node.limits
        while self._queue and self.gate.may_append(EntryKind.COMMANDS):
            size = taken = 0
            for command in self._queue[: limits.batch_commands]:
                size += 64 + _command_bytes(command)
                if taken and size > limits.batch_bytes:
                    break
                taken += 1
            batch, self._queue = self._queue[:taken], self._queue[taken:]
            self._append(EntryKind.COMMANDS, encode_batch(batch), self._stamp())

    def _stamp(self) -> int:
        """The time of the next entry; the log's last time while the own clock is in doubt."""
        node = self._node
        sets = node.sets()
        last = node.log.last_time_us
        differing = node.clocks.differing(sets)
        if differing and node.now - self._clock_alarm_at > 10 * node.timing.max_clock_skew_us:
            self._clock_alarm_at = node.now
            names = ", ".join(node.name_of(each) for each in differing)
            node.tell(f"the clock differs by more than the bound from that of {names}", "error")
        if not node.clocks.trusted(sets):
            if node.clocks.outvoted(sets) and not self.handing_over:
                self._leave_to_a_better_clock()
            return last
        return max(last, node.clock_us)

    def _leave_to_a_better_clock(self) -> None:
        """Hand over to somebody whose clock a majority shares; with nobody there, lead on."""
        node = self._node
        sets = node.sets()
        for peer in node.other_voters():
            alive = node.now - self._peers[peer].last_heard < node.timing.quorum_us
            if alive and node.clocks.agree_with_majority(peer, sets):
                self.transfer_to(peer)
                return

    def append_voters(self, payload: bytes) -> None:
        """Append another voter set: it counts at once, and until it is known committed so does
        the one before it."""
        if not self.gate.may_append(EntryKind.VOTERS):
            return
        self._append(EntryKind.VOTERS, payload, self._stamp())
        node = self._node
        for peer in node.other_voters():
            if peer not in self._peers:
                self._peers[peer] = Progress(Mode.PROBE, node.now, node.now)
        self.gate.look()

    def append_dissolved(self, successor: Successor) -> None:
        """Append this cluster's last entry: see `dissolution.py`."""
        self._append(EntryKind.DISSOLVED, encode_successor(successor), self._stamp())

    def has_to_tell(self, index: int) -> bool:
        """Somebody whom it reaches does not know yet that the log is committed up to `index`."""
        return any(self.reaches(peer) and self.commit_of(peer) < index for peer in self._peers)

    def _append(self, kind: EntryKind, payload: bytes, time_us: int) -> None:
        """Append, persist and multicast at the same time."""
        node = self._node
        previous = node.log.last
        entry = make_entry(previous, self.ballot, time_us, kind, payload)
        node.append(entry)
        for progress in self._peers.values():
            if progress.verified == previous.index:
                progress.progressed_at = node.now  # until now there was nothing to acknowledge
        streaming = tuple(peer for peer, each in self._peers.items() if each.mode is Mode.STREAM)
        if streaming:
            message = Append(self.ballot, previous, (entry,), node.commit, self.reads.round)
            node.emit(Multicast(streaming, message))

    # --- what followers answer ----------------------------------------------------------------

    def on_message(self, source: NodeId, message: Any) -> None:
        _MESSAGES[type(message)](self, source, message)

    def _on_ack(self, source: NodeId, ack: AppendAck | HeartbeatAck) -> None:
        node = self._node
        progress = self._peers.get(source)
        if progress is None or ack.ballot != self.ballot:
            return
        if ack.verified > node.log.last_index:
            node.tell(f"{node.name_of(source)} acknowledges what was never sent", "error")
            return
        progress.last_heard = node.now
        if source in self._missing:
            self._look_who_is_reached()
        if ack.commit > progress.commit:
            progress.commit = ack.commit
            self.changes.on_commit()
        node.clocks.observe(source, ack.clock_us, node.now)
        if ack.round > progress.round:
            progress.round = min(ack.round, self.reads.round)
            self._confirm_reads()
        if ack.verified > progress.verified:
            progress.verified = ack.verified
            progress.progressed_at = node.now
            self._count()
        if isinstance(ack, AppendAck):
            self._serve_follower(source, progress, ack)
        else:
            self._look_after(source, progress, ack)
        self.hand_over.pursue()

    def _look_after(self, source: NodeId, progress: Progress, ack: HeartbeatAck) -> None:
        """What it says of itself, and whether it lacks something."""
        if ack.protocol != progress.protocol:
            progress.protocol = ack.protocol
            self.gate.look()
        # That it takes no vote any more ends with one that it is given, or with its process: else
        # it is an earlier answer, which a later one has overtaken.
        late = progress.abstains and not self._node.is_voter(source)
        if ack.abstains != progress.abstains and not late:
            progress.abstains = ack.abstains
            self.changes.on_abstains(source)
        if progress.mode is Mode.PROBE:
            self._probe(source, progress)
        elif ack.verified < self._node.log.last_index:
            # By what it says now: one that lost sight of this leader has to verify anew.
            self._check_stall(source, progress)

    def _serve_follower(self, source: NodeId, progress: Progress, ack: AppendAck) -> None:
        arrived = progress.mode is Mode.CATCH_UP and ack.verified > progress.sent
        if progress.mode is Mode.PROBE or arrived:
            progress.sent = ack.verified
            self._send_missing(source, progress)

    def _probe(self, peer: NodeId, progress: Progress) -> None:
        """It lives: ask where it stands."""
        node = self._node
        if node.now - progress.probed_at >= node.timing.retry_us:
            progress.probed_at = node.now
            node.send(peer, Append(self.ballot, node.log.last, (), node.commit, self.reads.round))

    def _check_stall(self, peer: NodeId, progress: Progress) -> None:
        """It answers heartbeats but acknowledges nothing new: something was lost on the way."""
        node = self._node
        if node.now - progress.progressed_at >= node.timing.pull_stall_us:
            progress.progressed_at = node.now
            progress.enter(Mode.PROBE, node.now)
            self._probe(peer, progress)

    def _on_mismatch(self, source: NodeId, message: AppendMismatch) -> None:
        progress = self._peers.get(source)
        if progress is None or message.ballot != self.ballot:
            return
        progress.last_heard = self._node.now
        if message.matches >= message.previous_index:
            # It has another entry there and calls it committed: two histories. Asking again at
            # once would go on for ever.
            progress.enter(Mode.PROBE, self._node.now)
            progress.probed_at = self._node.now
            return
        if progress.mode is Mode.CATCH_UP and message.previous_index != progress.sent:
            return  # answers something sent before the catch-up began
        before_covered = progress.sent < message.previous_index <= progress.covered
        if progress.mode is Mode.STREAM and before_covered:
            return  # answers something sent before what was missing
        matches = min(message.matches, message.previous_index, self._node.log.last_index)
        if matches < self._node.log.base.index:
            self._say_behind(source, progress)
            return
        progress.sent = max(progress.verified, matches)
        self._send_missing(source, progress)

    def _say_behind(self, peer: NodeId, progress: Progress) -> None:
        """What it lacks is not in the log any more. It is asked again how far it is."""
        node = self._node
        progress.enter(Mode.PROBE, node.now)
        progress.probed_at = node.now
        node.send(peer, Behind(self.ballot, node.log.base.index))

    def _send_missing(self, peer: NodeId, progress: Progress) -> None:
        """Send what follows `progress.sent`: the rest at once if it is little, else a chunk."""
        node, log = self._node, self._node.log
        previous = log.position(progress.sent)
        if previous is None:
            self._say_behind(peer, progress)
            return
        if progress.sent == log.last_index:
            progress.enter(Mode.STREAM, node.now)
            return
        progress.progressed_at = node.now
        rest = log.last_index - progress.sent
        if rest <= node.limits.append_window_entries:
            entries = log.bodies(progress.sent + 1, log.last_index, node.limits.pull_bytes)
            if entries is not None and len(entries) == rest:
                message = Append(
                    self.ballot, previous, tuple(entries), node.commit, self.reads.round
                )
                node.send(peer, message)
                progress.covered = log.last_index
                # The link is FIFO: batches follow behind this.
                progress.enter(Mode.STREAM, node.now)
                return
        progress.enter(Mode.CATCH_UP, node.now)
        last = min(log.last_index, progress.sent + node.limits.append_window_entries)
        node.emit(SendEntries(peer, self.ballot, previous, last, False))

    def on_link_lost(self, peer: NodeId) -> None:
        """What was under way is gone; it will be asked where it stands when it answers."""
        progress = self._peers.get(peer)
        if progress is not None:
            progress.enter(Mode.PROBE, self._node.now)
            progress.probed_at = -1_000_000_000
            progress.abstains = None

    def _on_join(self, source: NodeId, message: Join) -> None:
        """A server that belongs to the cluster and does not vote gets the log all the same."""
        node = self._node
        if source not in self._peers and len(self._peers) < node.limits.servers_max:
            self._peers[source] = Progress(Mode.PROBE, node.now, node.now, name=message.server_name)
            node.tell(f"server {message.server_name} receives the log as a learner")
            self.gate.look()
            node.emit(MembersChanged())
            node.send(source, self._heartbeat())

    # --- commit -------------------------------------------------------------------------------

    def on_persisted(self, log_grew: bool) -> None:
        self._count()

    def _count(self) -> None:
        """Commit what a quorum holds durably, once that includes the own no-op."""
        node = self._node
        held = {peer: each.verified for peer, each in self._peers.items()}
        held[node.self_id] = node.durability.durable_index
        index = quorum_value(node.sets(), held)
        if index > node.commit and index >= self._noop_index:
            node.advance_commit(index)
            self.changes.on_commit()

    def maybe_serve(self) -> None:
        """Serve once the store has applied everything up to the own no-op."""
        node = self._node
        if not self.serving and node.applied >= self._noop_index:
            self.serving = True
            node.tell(f"serving clients in term {self.ballot.term}")
            node.emit(LeaderChanged(node.self_id, self.ballot, True))

    # --- reads --------------------------------------------------------------------------------

    def read(self, ticket: int) -> None:
        node = self._node
        if not self.serving:
            node.emit(ReadFailed((ticket,), "no_leader"))
            return
        self.reads.add(ticket, node.commit)

    def _confirm_reads(self) -> None:
        node = self._node
        rounds = {peer: each.round for peer, each in self._peers.items()}
        confirmed = self.reads.confirm(node.sets(), rounds, node.self_id)
        if confirmed is not None:
            tickets, index = confirmed
            own = tuple(ticket for ticket in tickets if ticket >= 0)
            if own:
                node.emit(ReadReady(own, index))
            for ticket in tickets:
                if ticket < 0:
                    source, number = self._questions.pop(ticket)
                    node.send(source, ReadIndexReply(number, self.ballot, index))

    def _on_read_index(self, source: NodeId, message: ReadIndex) -> None:
        node = self._node
        if not self.serving or len(self._questions) >= node.limits.pending_reads:
            node.send(source, ReadIndexReply(message.number, self.ballot, -1))
            return
        # Questions of followers wait among the own reads, under negative tickets.
        ticket, self._next_question = self._next_question, self._next_question - 1
        self._questions[ticket] = (source, message.number)
        self.reads.add(ticket, node.commit)

    # --- heartbeat, quorum, time --------------------------------------------------------------

    def _heartbeat(self) -> Heartbeat:
        node = self._node
        return Heartbeat(self.ballot, node.commit, node.log.last_index, self.reads.round)

    def _beat(self) -> None:
        node = self._node
        heartbeat = self._heartbeat()
        for peer in self._peers:
            node.send(peer, heartbeat)
        self._heartbeat_at = node.now + node.timing.heartbeat_us

    def _hears_quorum(self) -> bool:
        node = self._node
        heard = [peer for peer in self._peers if self.reaches(peer)]
        return is_quorum(node.sets(), [node.self_id, *heard])

    def deadline(self) -> int | None:
        at = min(self._heartbeat_at, self._look_at, self.changes.deadline())
        read = self.reads.deadline(self._node.timing.read_round_us)
        if read is not None and read < at:
            at = read
        until = self.hand_over.until
        return at if until is None else min(at, until)

    def excuse(self, late_us: int) -> None:
        """This process slept for so long: that was nobody's silence."""
        for progress in self._peers.values():
            progress.last_heard = min(progress.last_heard + late_us, self._node.now)

    def on_time(self) -> None:
        node = self._node
        self._look_at = node.now + node.timing.heartbeat_us
        if not self._hears_quorum():
            node.tell("no quorum answers: stepping down", "warning")
            node.become_follower(None, self.ballot)
            return
        if node.stalled:
            node.tell("the disk has not finished a write for too long: stepping down", "error")
            node.become_follower(None, self.ballot, node.timing.suspect_ceiling_us)
            return
        if node.now >= self._heartbeat_at:
            self._beat()
            self._count()  # a change that is committed since ends the say of the set before it
            self._drop_silent_learners()
            self._look_who_is_reached()
            self.hand_over.maybe_give_way()
        self.changes.on_time()
        self.hand_over.on_time()

    def _drop_silent_learners(self) -> None:
        node = self._node
        limit = node.now - node.timing.link_idle_us
        silent = [
            peer
            for peer, each in self._peers.items()
            if each.last_heard < limit or (each.abstains and not self.reaches(peer))
        ]  # who was removed and is not heard any more has gone
        for peer in silent:
            if not node.is_voter(peer):
                del self._peers[peer]
                node.clocks.forget(peer)
                self.changes.on_silent(peer)
                self.gate.look()
                node.emit(MembersChanged())

    def reaches(self, peer: NodeId) -> bool:
        """It has answered lately."""
        progress = self._peers.get(peer)
        now, quorum_us = self._node.now, self._node.timing.quorum_us
        return progress is not None and now - progress.last_heard <= quorum_us

    def _look_who_is_reached(self) -> None:
        """People and clients are shown who is not."""
        missing = tuple([peer for peer in self._peers if not self.reaches(peer)])
        if missing != self._missing:
            self._missing = missing
            self._node.emit(MembersChanged())

    # --- losing and giving away ---------------------------------------------------------------

    def on_ballot_refused(self, source: NodeId, message: BallotRefused) -> None:
        """Somebody promised a higher ballot. If it hears no other leader, lead above it."""
        node = self._node
        if message.leader not in (0, node.self_id):
            node.tell(f"{node.name_of(NodeId(message.leader))} leads in a later term")
            node.become_follower(None, self.ballot)
            return
        recently = (
            node.last_reprepare is not None
            and node.now - node.last_reprepare < node.timing.suspect_floor_us
        )
        if recently or self.hand_over.ordered or source not in self._peers:
            return
        node.last_reprepare = node.now
        above = min(message.promised, Ballot(self.ballot.term + TERM_JUMP_MAX - 1, 0))
        node.become_candidate(
            f"{node.name_of(source)} was cut off after promising a later term", above=above
        )

    @property
    def handing_over(self) -> bool:
        return self.hand_over.target is not None

    def transfer_to(self, target: NodeId | None) -> None:
        """Stop taking commands, let `target` catch up, order it to take over."""
        self.hand_over.begin(target)

    # --- what people see ----------------------------------------------------------------------

    def name_of(self, peer: NodeId) -> str:
        """A name for people, and for the voter set that `peer` is to be in."""
        progress = self._peers.get(peer)
        return progress.name if progress is not None and progress.name else self._node.name_of(peer)

    def commit_of(self, peer: NodeId) -> int:
        """Up to where `peer` said that it knows the log committed."""
        return self._peers[peer].commit

    def progress_of(self, peer: NodeId) -> Progress | None:
        return self._peers.get(peer)

    @property
    def followers(self) -> ItemsView[NodeId, Progress]:
        """Everybody whom it serves: the voters in every set in play, and learners."""
        return self._peers.items()

    @property
    def peers(self) -> tuple[NodeId, ...]:
        return tuple(sorted(self._peers))

    def check(self) -> None:
        node = self._node
        assert self.ballot.node == node.self_id, "leads in somebody else's ballot"
        assert self.ballot == node.promised, "leads below its own promise"
        for peer, progress in self._peers.items():
            assert progress.verified <= node.log.last_index, f"{peer:x} verified beyond the log"
        if self.serving:
            assert node.commit >= self._noop_index, "serves before its no-op is committed"


def _command_bytes(command: LogCommand) -> int:
    if isinstance(command, SessionCommand):
        return len(command.command)
    return len(command.name) if isinstance(command, OpenCommand) else 0


_MESSAGES: dict[type, Any] = {
    HeartbeatAck: Leader._on_ack,
    AppendAck: Leader._on_ack,
    AppendMismatch: Leader._on_mismatch,
    ReadIndex: Leader._on_read_index,
    Join: Leader._on_join,
}
