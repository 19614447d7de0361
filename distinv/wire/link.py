"""The reliable FIFO link between two processes: one class for each direction, without I/O.

A link carries a stream of messages (see `stream`) cut into numbered segments: many small
messages share one, a large one takes many, and a segment is the unit of repair. The receiver
puts segments in order, names those that are missing (NAK) and acknowledges all below a number
(cumulatively). The sender keeps what is not acknowledged, within a fixed window of segments and
bytes.

What repairs what:

- a lost segment in the middle: three later datagrams, or `link_nak_us`, and it is asked for
  again, then with back-off and jitter;
- a lost last segment: a sender that fell silent sends it again and announces how far it has
  sent (a tail loss probe, RFC 8985, section 7);
- a lost announcement or acknowledgement: the sender's time-out (RFC 6298), which sends the
  oldest segment again and halves the byte window; acknowledgements widen it again step by step.

A stream belongs to an *epoch*, numbered upwards by the sending process and never used twice.
A sender that gives up what it has queued goes on under the next epoch from segment 0. A
receiver never goes back to an earlier epoch, so nothing of an abandoned stream arrives late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import msgspec
from attrs import define, frozen

from distinv.config import Limits, Timing
from distinv.wire.events import Stats
from distinv.wire.frame import (
    DATA_BYTES,
    RANGES_MAX,
    SPEAKS,
    Ack,
    Announce,
    Data,
    encode_ack,
    encode_announce,
    encode_data,
    encode_refuse,
)
from distinv.wire.stream import StreamReader, StreamWriter

WINDOW_FLOOR_SEGMENTS = 4
"""The byte window never shrinks below this: fewer could not reveal a loss by later datagrams."""
_BACKOFF_DOUBLINGS_MAX = 2
"""A gap is asked for at least every four `link_nak_us`: all that follows waits for it."""
_WINDOW_STEP_PART = 16
"""A halved window is whole again after eight acknowledgements."""
_SLIVER_PART = 4
"""A segment of less than a quarter waits for the next datagram, unless it is all there is."""


def jittered(random: Random, duration_us: int) -> int:
    """Between three and five quarters of a duration, so that peers do not act in step."""
    return duration_us * 3 // 4 + random.randrange(duration_us // 2 + 1)


def sooner(one: int | None, other: int | None) -> int | None:
    """The earlier of two times, either of which may never come."""
    if one is None or other is None:
        return other if one is None else one
    return one if one < other else other


@frozen
class LinkContext:
    """What all links of a process share."""

    timing: Timing
    limits: Limits
    random: Random
    segment_bytes: int
    """The largest payload of one Data chunk."""
    next_epoch: Callable[[], int]
    """Counts upwards over all peers, so that no epoch comes twice, even when a peer was forgotten
    and came back."""
    stats: Stats
    speaks: tuple[int, int] = SPEAKS


class _Segment(msgspec.Struct):
    payload: bytes
    sent_at: int
    repeated: bool = False


class LinkSender:
    """The sending direction.

    A user pushes messages; whoever packs datagrams takes chunks while there are any. Invariant:
    segments `_base` .. `_base + len(_flight) - 1` are sent and not acknowledged.
    """

    def __init__(self, epoch: int, context: LinkContext) -> None:
        self.epoch = epoch
        self._segment_bytes = context.segment_bytes
        self._timing = context.timing
        self._limits = context.limits
        self._random = context.random
        self._stats = context.stats
        self._stream = StreamWriter(self._limits.link_queue_bytes)
        """What waits behind the window."""
        self._base = 0
        self._flight: deque[_Segment] = deque()
        self._flight_bytes = 0
        self._window_bytes = self._limits.link_window_bytes
        self._repairs: dict[int, None] = {}
        """Segments to send again, in the order they were asked for."""
        self._repair_budget = self._window_bytes
        self._resume_at: int | None = None
        """When the budget is renewed, once it is used up."""
        self._announce = False
        self._probe_at: int | None = None
        self._timeout_at: int | None = None
        self._doublings = 0
        self._smoothed_us = 0
        self._variance_us = 0

    @property
    def _next(self) -> int:
        return self._base + len(self._flight)

    @property
    def idle(self) -> bool:
        """Everything pushed has been acknowledged."""
        return not self._stream.waiting_bytes and not self._flight

    def push(self, body: bytes) -> bool:
        """Queue a message; False when the queue has no room for it."""
        return self._stream.push(body)

    # --- what goes out ----------------------------------------------------------------------

    def begin_flush(self, now: int) -> bool:
        """Repetitions are paced: at most one window, then a pause. Whether anything is ready."""
        if self._resume_at is None or self._resume_at <= now:
            self._resume_at = None
            self._repair_budget = self._window_bytes
        # Most often there is nothing, and that is told without another call.
        return bool(self._announce or self._repairs or self._stream.waiting_bytes) and self.ready

    @property
    def ready(self) -> bool:
        """Whether there is a chunk to take."""
        return (
            self._announce
            or (bool(self._repairs) and self._repair_budget > 0)
            or (self._stream.waiting_bytes > 0 and self._may_cut())
        )

    def next_chunk(self, room: int, now: int) -> bytes | None:
        """A chunk of at most `room` bytes, or None: it takes more room. Only while `ready`.

        Everything that is ready fits a room of `segment_bytes + DATA_BYTES`.
        """
        if self._announce:
            return self._take_announcement(room)
        seq = self._repairable()
        if seq is not None:
            return self._take_repair(seq, room, now)
        return self._take_new(room, now)

    def announce(self) -> None:
        """Say how far this epoch has got, at the next flush."""
        self._announce = True

    def _take_announcement(self, room: int) -> bytes | None:
        chunk = encode_announce(self.epoch, self._next)
        if len(chunk) > room:
            return None
        self._announce = False
        return chunk

    def _repairable(self) -> int | None:
        if self._repair_budget <= 0:
            return None
        for seq in self._repairs:
            return seq
        return None

    def _take_repair(self, seq: int, room: int, now: int) -> bytes | None:
        segment = self._flight[seq - self._base]
        if DATA_BYTES + len(segment.payload) > room:
            return None
        del self._repairs[seq]
        self._repair_budget -= len(segment.payload)
        if self._repair_budget <= 0:
            self._resume_at = now + self._timing.link_ack_us
        self._stats.repaired_segments += 1
        segment.sent_at = now
        segment.repeated = True
        return encode_data(self.epoch, seq, segment.payload)

    def _may_cut(self) -> bool:
        size = min(self._stream.waiting_bytes, self._segment_bytes)
        return (
            size > 0
            and self._flight_bytes + size <= self._window_bytes
            and len(self._flight) < self._limits.link_window_fragments
        )

    def _take_new(self, room: int, now: int) -> bytes | None:
        room = min(room - DATA_BYTES, self._segment_bytes)
        if room < min(self._stream.waiting_bytes, self._segment_bytes // _SLIVER_PART):
            return None
        payload = self._stream.cut(room)
        seq = self._base + len(self._flight)
        self._flight.append(_Segment(payload, now))
        self._flight_bytes += len(payload)
        self._probe_at = now + max(self._timing.link_nak_us, 2 * self._smoothed_us)
        if self._timeout_at is None:
            self._arm_timeout(now)
        return encode_data(self.epoch, seq, payload)

    # --- what comes in ----------------------------------------------------------------------

    def on_ack(self, ack: Ack, now: int) -> None:
        if ack.epoch != self.epoch:
            # It still waits for an abandoned stream: tell it.
            self._announce |= ack.epoch < self.epoch
            return
        if not self._base <= ack.next_seq <= self._next:
            return  # overtaken by a later one, or of something never sent
        progress = ack.next_seq > self._base
        if progress:
            self._acknowledge(ack.next_seq, now)
        for first, count in ack.missing:
            self._repeat(first, count, now)
        # The receiver lives, and asks for what it misses.
        self._timeout_at = None
        if self._flight:
            self._arm_timeout(now)
        else:
            self._probe_at = None

    def _acknowledge(self, next_seq: int, now: int) -> None:
        self._doublings = 0
        repeated = False
        while self._base < next_seq:
            segment = self._flight.popleft()
            self._flight_bytes -= len(segment.payload)
            self._repairs.pop(self._base, None)
            self._base += 1
            repeated |= segment.repeated
        # Karn's rule: of a repetition one cannot tell which copy was answered. Nor of what
        # waited behind one.
        if not repeated:
            self._measure(now - segment.sent_at)
        whole_bytes = self._limits.link_window_bytes
        step_bytes = max(whole_bytes // _WINDOW_STEP_PART, self._segment_bytes)
        self._window_bytes = min(self._window_bytes + step_bytes, whole_bytes)

    def _repeat(self, first: int, count: int, now: int) -> None:
        # A repetition that can still be under way is not repeated.
        settled = now - max(self._timing.link_nak_us // 2, self._smoothed_us)
        for seq in range(max(first, self._base), min(first + count, self._next)):
            segment = self._flight[seq - self._base]
            if not segment.repeated or segment.sent_at <= settled:
                self._repairs[seq] = None

    def _measure(self, sample_us: int) -> None:
        if not self._smoothed_us:
            self._smoothed_us, self._variance_us = sample_us, sample_us // 2
            return
        self._variance_us += (abs(sample_us - self._smoothed_us) - self._variance_us) // 4
        self._smoothed_us += (sample_us - self._smoothed_us) // 8

    # --- time -------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        at = sooner(self._probe_at, self._timeout_at) if self._flight else None
        return sooner(at, self._resume_at) if self._repairs else at

    def on_deadline(self, now: int) -> None:
        if self._timeout_at is not None and self._timeout_at <= now:
            self._time_out(now)
        elif self._probe_at is not None and self._probe_at <= now:
            self._probe_at = None
            self._announce = True
            # Most often just the last one was lost: that saves a round trip.
            self._repairs[self._next - 1] = None

    def _time_out(self, now: int) -> None:
        self._stats.timeouts += 1
        self._probe_at = None
        self._announce = True
        self._repairs[self._base] = None
        self._window_bytes = max(
            self._window_bytes // 2, WINDOW_FLOOR_SEGMENTS * self._segment_bytes
        )
        self._doublings += 1
        self._arm_timeout(now)

    def _arm_timeout(self, now: int) -> None:
        first_us = max(self._timing.link_retransmit_us, self._smoothed_us + 4 * self._variance_us)
        doublings = min(self._doublings, 10)
        wait_us = min(first_us << doublings, self._timing.link_retransmit_ceiling_us)
        self._timeout_at = now + jittered(self._random, wait_us)

    def check(self) -> None:
        """Assert what always holds; for tests."""
        assert self._flight_bytes == sum(len(segment.payload) for segment in self._flight)
        assert self._flight_bytes <= self._limits.link_window_bytes
        assert len(self._flight) <= self._limits.link_window_fragments
        assert all(self._base <= seq < self._next for seq in self._repairs)
        assert bool(self._flight) == (self._timeout_at is not None), "what is sent is watched"


@define
class _Gap:
    ask_at: int
    asked: int = 0


class LinkReceiver:
    """The receiving direction of one epoch.

    Invariant: of the segments `_next` .. `_known - 1`, each is either in `_parts` (it arrived out
    of order) or in `_gaps`, whose keys ascend.
    """

    def __init__(self, epoch: int, context: LinkContext) -> None:
        self.epoch = epoch
        self._timing = context.timing
        self._limits = context.limits
        self._random = context.random
        self._stats = context.stats
        self._next = 0
        self._known = 0
        self._parts: dict[int, bytes] = {}
        self._parts_bytes = 0
        self._gaps: dict[int, _Gap] = {}
        self._unasked: deque[tuple[int, int]] = deque()
        """Gaps revealed lately: (segment, number of the datagram that revealed it)."""
        self._datagrams = 0
        self._ask_at: int | None = None
        self._ack_at: int | None = None
        self._unacknowledged_bytes = 0
        self._stream = StreamReader(self._limits.message_bytes)

    # --- what comes in ----------------------------------------------------------------------

    def on_data(self, data: Data, now: int, bodies: list[bytes]) -> None:
        """Take one segment; messages that became complete are appended to `bodies`."""
        seq, payload = data.seq, data.payload
        self._owe_ack(now, len(payload))
        offset = seq - self._next
        if self._stream.broken or not 0 <= offset < self._limits.link_window_fragments:
            return
        if offset:
            self._keep(data, now)
            return
        if seq == self._known:
            self._known += 1
        else:
            self._fill(seq)
        self._deliver(payload, bodies)
        while self._parts and self._next in self._parts:
            payload = self._parts.pop(self._next)
            self._parts_bytes -= len(payload)
            self._deliver(payload, bodies)

    def _deliver(self, payload: bytes, bodies: list[bytes]) -> None:
        self._next += 1
        self._stream.feed(payload, bodies)

    def _keep(self, data: Data, now: int) -> None:
        """Keep a segment that arrived before an earlier one."""
        seq, size = data.seq, len(data.payload)
        if seq in self._parts or self._parts_bytes + size > self._limits.link_reorder_bytes:
            return
        self._parts[seq] = data.payload
        self._parts_bytes += size
        if seq < self._known:
            self._fill(seq)
        else:
            self._reveal(seq, now + self._timing.link_nak_us)
            self._known = seq + 1

    def on_announce(self, announce: Announce, now: int) -> None:
        """The sender fell silent: what has not arrived by now is lost."""
        self._ack_at = now
        self._reveal(min(announce.next_seq, self._next + self._limits.link_window_fragments), now)

    def _reveal(self, until: int, ask_at: int) -> None:
        """Segments `_known` .. `until - 1` exist and have not arrived."""
        if until <= self._known:
            return
        for seq in range(self._known, until):
            self._gaps[seq] = _Gap(ask_at)
            self._unasked.append((seq, self._datagrams))
        self._known = until
        self._ask_at = sooner(self._ask_at, ask_at)

    def _fill(self, seq: int) -> None:
        del self._gaps[seq]
        if not self._gaps:
            self._ask_at = None

    def end_datagram(self, now: int) -> None:
        """A datagram with data has been taken: the third one after a gap makes it a loss."""
        self._datagrams += 1
        while self._unasked and self._unasked[0][1] + 3 <= self._datagrams:
            seq, _ = self._unasked.popleft()
            gap = self._gaps.get(seq)
            if gap is not None and not gap.asked:
                gap.ask_at = self._ask_at = now

    def _owe_ack(self, now: int, size: int) -> None:
        self._unacknowledged_bytes += size
        # Not so late that the sender waits with a full window.
        at_once = self._unacknowledged_bytes * 4 >= self._limits.link_window_bytes
        ack_at = now if at_once else now + self._timing.link_ack_us
        if self._ack_at is None or ack_at < self._ack_at:
            self._ack_at = ack_at

    # --- what goes out ----------------------------------------------------------------------

    @property
    def owes_ack(self) -> bool:
        """Something arrived since the last acknowledgement, which may wait for company."""
        return self._ack_at is not None

    def deadline(self) -> int | None:
        return self._ack_at if self._ask_at is None else sooner(self._ask_at, self._ack_at)

    def take_ack(self, now: int) -> bytes:
        """The acknowledgement chunk, with the gaps that should be filled now."""
        self._ack_at = None
        self._unacknowledged_bytes = 0
        if self._stream.broken:
            self._ask_at = None
            return encode_refuse(self.epoch)
        return encode_ack(self.epoch, self._next, self._ask(now))

    def _ask(self, now: int) -> list[tuple[int, int]]:
        if self._ask_at is None or self._ask_at > now:
            return []
        ranges: list[tuple[int, int]] = []
        # Gaps asked for together are due together, and what is nearly due goes along: a peer that
        # never fills a thousand gaps must not cost a datagram for each.
        again_at: dict[int, int] = {}
        soon = now + self._timing.link_ack_us
        for seq, gap in self._gaps.items():
            if gap.ask_at > (soon if gap.asked else now):
                continue
            first, count = ranges[-1] if ranges else (seq, 0)
            if ranges and first + count == seq:
                ranges[-1] = (first, count + 1)
            elif len(ranges) < RANGES_MAX:
                ranges.append((seq, 1))
            else:
                break  # the rest stays due
            doublings = min(gap.asked, _BACKOFF_DOUBLINGS_MAX)
            if doublings not in again_at:
                wait_us = self._timing.link_nak_us << doublings
                again_at[doublings] = now + jittered(self._random, wait_us)
            gap.ask_at = again_at[doublings]
            gap.asked += 1
            self._stats.asked_segments += 1
        self._ask_at = min((gap.ask_at for gap in self._gaps.values()), default=None)
        return ranges

    def check(self) -> None:
        """Assert what always holds; for tests."""
        assert [*self._gaps] == sorted(self._gaps)
        assert sorted([*self._gaps, *self._parts]) == [*range(self._next, self._known)]
        assert self._known - self._next <= self._limits.link_window_fragments
        assert self._parts_bytes == sum(map(len, self._parts.values()))
        assert self._parts_bytes <= self._limits.link_reorder_bytes
        assert bool(self._gaps) == (self._ask_at is not None) or self._stream.broken
