"""A server that follows a leader, or waits for one.

It verifies and keeps what the leader sends, acknowledges what is durable, asks the leader for
read indexes, and calls for an election when it hears nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distinv.core.events import FetchSnapshot, Probe, ReadFailed, ReadReady, Send
from distinv.core.membership import has_readable_voters
from distinv.entry import follows
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    BallotRefused,
    Behind,
    Heartbeat,
    HeartbeatAck,
    ReadIndex,
    ReadIndexReply,
    TransferOrder,
)

if TYPE_CHECKING:
    from distinv.core.node import Node


_TURNS_TOLD_APART = 4
"""More servers than that do not wait for one another in the largest cluster."""


class Follower:
    def __init__(self, node: Node, grace_us: int = 0) -> None:
        self._node = node
        timing = node.timing
        self.reads = node.questions
        self.verified = 0
        """Invariant 6: the own log up to here was compared with this leader's in this ballot.
        It starts at nothing with every new leader: this object is made anew."""
        self._leader_commit = 0
        self._round = 0
        self._ack_due = False
        wait_us = grace_us + timing.suspect_floor_us
        self._suspect_at = node.now + wait_us + node.random.randrange(timing.suspect_floor_us)
        """While there is no leader: when to call for an election (again)."""
        if node.leader is None:
            self._take_turn(grace_us)
        self._probe_at = 0

    def _watchdog_from(self, start: int) -> int:
        """A random time without a leader, longer after each campaign that failed."""
        node = self._node
        span = node.timing.watchdog_us << min(node.campaigns.failed, 2)
        return start + node.timing.watchdog_us + node.random.randrange(span)

    def _take_turn(self, grace_us: int) -> None:
        """When to campaign, whatever the election says.

        A turn that is due while others campaign comes when they have had their time, and first
        that of whoever has waited for most of them: they may be such as can never win, and come
        again before one who could.
        """
        node = self._node
        turn_at = self._watchdog_from(node.now + grace_us)
        if node.campaigns.turn_at is None:
            node.campaigns.passed_over = 0
        else:
            node.campaigns.passed_over += 1
            span = node.timing.suspect_floor_us >> min(
                node.campaigns.passed_over, _TURNS_TOLD_APART
            )
            soon = node.now + grace_us + span + node.random.randrange(span)
            turn_at = min(turn_at, max(node.campaigns.turn_at, soon))
        node.campaigns.turn_at = turn_at

    def call_election(self) -> None:
        """There is no leader to wait for."""
        self._suspect_at = self._node.now

    # --- what the leader says -----------------------------------------------------------------

    def on_message(self, message: ReadIndexReply | TransferOrder | Behind) -> None:
        if isinstance(message, ReadIndexReply):
            self._on_read_index(message)
        elif isinstance(message, TransferOrder):
            self._on_transfer_order(message)
        elif message.ballot == self._node.leader_ballot:
            self._on_behind(message)

    def _on_behind(self, message: Behind) -> None:
        if message.base > self._node.commit:  # the log may reach further, and differ from there on
            self._node.emit(FetchSnapshot(self._leader()))

    def on_heartbeat(self, message: Heartbeat) -> None:
        self._round = max(self._round, message.round)
        self._learn_commit(message.commit)
        if not self._node.stalled:  # else: a leader that lives on such answers must step down
            self.acknowledge()

    def acknowledge(self) -> None:
        """Say to the leader what a heartbeat asks for."""
        node = self._node
        ack = HeartbeatAck(
            node.leader_ballot,
            self._acknowledged(),
            node.commit,
            self._round,
            node.clock_us,
            node.protocol,
            node.abstains,
        )
        node.hold_for_promise(Send(self._leader(), ack))

    def on_append(self, message: Append) -> None:
        node, log = self._node, self._node.log
        self._round = max(self._round, message.round)
        previous = message.previous
        if not log.holds(previous):
            conflict = log.position(previous.index) is not None
            guess = log.guess_match(previous.index - conflict, previous.ballot)
            # What is committed is in every later leader's log.
            matches = max(guess, min(node.commit, previous.index))
            node.send(self._leader(), AppendMismatch(message.ballot, previous.index, matches))
            return
        entries = message.entries
        if entries and (
            entries[-1].ballot > message.ballot
            or not follows(previous, entries)
            or not has_readable_voters(entries)
        ):
            node.tell("entries from the leader do not follow by hash: dropped", "error")
            return
        node.adopt(entries)
        if log.last.ballot == message.ballot:
            node.campaigns.turn_at = None  # somebody could win
        # A leader that tells two histories may have made the log shorter than it was verified.
        verified = min(self.verified, log.last_index)
        self.verified = max(verified, previous.index + len(entries))
        self._learn_commit(message.commit)
        if self._acknowledged() < self.verified:
            self._ack_due = True
        else:
            self._acknowledge()

    def _acknowledged(self) -> int:
        """Invariant 6: durable here *and* verified against this leader."""
        return min(self.verified, self._node.durability.durable_index)

    def _learn_commit(self, leader_commit: int) -> None:
        self._leader_commit = max(self._leader_commit, leader_commit)
        self._node.advance_commit(min(self._leader_commit, self._acknowledged()))

    def _acknowledge(self) -> None:
        node = self._node
        self._ack_due = False
        ack = AppendAck(
            node.leader_ballot, self._acknowledged(), node.commit, self._round, node.clock_us
        )
        node.hold_for_promise(Send(self._leader(), ack))

    def _leader(self) -> Any:
        assert self._node.leader is not None
        return self._node.leader

    def on_persisted(self, log_grew: bool) -> None:
        if self._node.leader is None:
            return
        self._node.advance_commit(min(self._leader_commit, self._acknowledged()))
        if log_grew and self._ack_due:
            self._acknowledge()
            self._ack_due = self._acknowledged() < self.verified

    def on_ballot_refused(self, source: Any, message: BallotRefused) -> None:
        """Late: this node leads no more."""

    def _on_transfer_order(self, message: TransferOrder) -> None:
        node = self._node
        if message.ballot == node.leader_ballot and node.is_voter(node.self_id):
            node.become_candidate("the leader hands over", message.ballot)

    # --- reads --------------------------------------------------------------------------------

    def read(self, ticket: int) -> None:
        node = self._node
        if not node.hears_leader():
            node.emit(ReadFailed((ticket,), "no_leader"))
        elif node.stalled:
            # What it could read of may never be durable here.
            node.emit(ReadFailed((ticket,), "not_leader"))
        else:
            self.reads.add(ticket, node.now)

    def _ask(self) -> None:
        node = self._node
        if self.reads.unanswered_us(node.now) > node.timing.suspect_floor_us:
            # The leader is heard and does not hear: whoever waits may ask it directly.
            node.emit(ReadFailed(self.reads.abandon(), "not_leader"))
            return
        number = self.reads.next_question(node.now, node.timing.read_round_us)
        if number is not None and node.leader is not None:
            node.send(node.leader, ReadIndex(number))

    def _on_read_index(self, message: ReadIndexReply) -> None:
        node = self._node
        if message.ballot != node.leader_ballot:
            return
        served = self.reads.answered(message.number, node.now)
        if message.index < 0:
            if served:
                node.emit(ReadFailed(served, "no_leader"))
            return
        self._learn_commit(message.index)
        if served:
            node.emit(ReadReady(served, message.index))

    # --- time ---------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """Of a server that was born; before, birth has the deadline."""
        node = self._node
        if node.leader is None:
            return min(self._suspect_at, self._turn_at) if self._votes() else None
        heard = node.detector.last_heard
        read = self.reads.deadline(node.timing.read_round_us)
        assert heard is not None, "follows a leader it never heard"
        at = max(self._probe_at, heard + node.timing.probe_after_us)
        suspect_at = node.detector.deadline()
        if suspect_at is not None and suspect_at < at:
            at = suspect_at
        return at if read is None or at < read else read

    @property
    def _turn_at(self) -> int:
        turn_at = self._node.campaigns.turn_at
        assert turn_at is not None, "waits for a leader without an end"
        return turn_at

    def _votes(self) -> bool:
        return self._node.is_voter(self._node.self_id)

    def excuse(self, late_us: int) -> None:
        """This process slept; so did its timers."""
        if self._node.leader is None:
            self._suspect_at = max(self._suspect_at, self._node.campaigns.late_until)
            self._node.campaigns.turn_at = max(self._turn_at, self._node.campaigns.late_until)

    def on_time(self) -> None:
        node = self._node
        if node.birth is not None:
            return
        if node.leader is not None:
            self._watch_leader()
            return
        if not self._votes():
            return
        if node.now >= self._suspect_at:
            span = node.timing.suspect_floor_us
            self._suspect_at = node.now + span + node.random.randrange(span)
            node.elector.on_suspect(None, node.now)
        if node.now >= self._turn_at:
            node.campaigns.turn_at = self._watchdog_from(node.now)
            if node.may_campaign():
                node.become_candidate("no leader for too long")

    def _watch_leader(self) -> None:
        node, detector = self._node, self._node.detector
        deadline, heard = detector.deadline(), detector.last_heard
        assert node.leader is not None
        if deadline is not None and node.now >= deadline:
            self._suspect(node.leader, heard or 0)
            return
        if heard is not None and node.now >= max(
            self._probe_at, heard + node.timing.probe_after_us
        ):
            self._probe_at = node.now + node.timing.retry_us
            node.emit(Probe(node.leader))
        self._ask()

    def _suspect(self, leader: Any, heard: int) -> None:
        """The leader is late or gone: who should lead next?"""
        node = self._node
        why = "its process is gone" if node.detector.refused_at is not None else "it is silent"
        silent_ms = (node.now - heard) // 1_000
        node.tell(f"suspecting leader {node.name_of(leader)}: {why} ({silent_ms} ms)", "warning")
        node.become_follower(None, node.leader_ballot)
        if self._votes():
            node.elector.on_suspect(leader, node.now)

    def end_turn(self) -> None:
        if self.reads.waiting:
            self._ask()

    def check(self) -> None:
        node = self._node
        assert self.verified <= node.log.last_index, "verified beyond the log"
