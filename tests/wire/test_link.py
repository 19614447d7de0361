"""One link, one direction at a time: what is sent when, and what is asked for when."""

from __future__ import annotations

from itertools import count, pairwise
from random import Random

import pytest
from attrs import evolve

from distinv.config import Limits, Timing
from distinv.wire.events import Stats
from distinv.wire.frame import (
    CHUNK_BYTES,
    DATA_BYTES,
    RANGES_MAX,
    Ack,
    Announce,
    Chunk,
    Data,
    Refuse,
    parse_chunks_untrusted,
)
from distinv.wire.link import WINDOW_FLOOR_SEGMENTS, LinkContext, LinkReceiver, LinkSender

TIMING = Timing()
NAK_US = TIMING.link_nak_us
SEGMENT_BYTES = 100
LIMITS = Limits(link_window_bytes=2_000, link_window_fragments=64, link_queue_bytes=50_000)
FULL_WINDOW = LIMITS.link_window_bytes // SEGMENT_BYTES


def context(limits: Limits = LIMITS) -> LinkContext:
    return LinkContext(
        timing=TIMING,
        limits=limits,
        random=Random(1),
        segment_bytes=SEGMENT_BYTES,
        next_epoch=count(1).__next__,
        stats=Stats(),
    )


def flush(sender: LinkSender, now: int) -> list[Chunk]:
    sender.begin_flush(now)
    chunks = []
    while sender.ready:
        chunk = sender.next_chunk(SEGMENT_BYTES + DATA_BYTES, now)
        assert chunk is not None
        chunks += parse_chunks_untrusted(chunk)
    return chunks


def seqs(chunks: list[Chunk]) -> list[int]:
    return [chunk.seq for chunk in chunks if isinstance(chunk, Data)]


def announced(chunks: list[Chunk]) -> list[int]:
    return [chunk.next_seq for chunk in chunks if isinstance(chunk, Announce)]


def ack(next_seq: int, *missing: tuple[int, int], epoch: int = 1) -> Ack:
    return Ack(epoch, next_seq, missing)


# --- the sender -------------------------------------------------------------------------------


def sender_with(segments: int, limits: Limits = LIMITS) -> LinkSender:
    sender = LinkSender(1, context(limits))
    assert sender.push(bytes(segments * SEGMENT_BYTES - 4))
    return sender


def test_small_messages_share_a_segment() -> None:
    sender = LinkSender(1, context())
    for _ in range(5):
        assert sender.push(b"0123456789")
    assert seqs(flush(sender, 0)) == [0]


def test_never_more_than_the_window() -> None:
    sender = sender_with(100)
    assert seqs(flush(sender, 0)) == list(range(FULL_WINDOW))
    assert not flush(sender, 1)
    sender.on_ack(ack(3), 2)
    assert seqs(flush(sender, 2)) == [FULL_WINDOW, FULL_WINDOW + 1, FULL_WINDOW + 2]


def test_the_window_counts_segments_too() -> None:
    sender = sender_with(100, evolve(LIMITS, link_window_fragments=7))
    assert seqs(flush(sender, 0)) == list(range(7))


def test_a_message_that_the_queue_cannot_hold() -> None:
    sender = LinkSender(1, context())
    assert sender.push(bytes(49_000))
    assert not sender.push(bytes(1_000))
    assert sender.push(bytes(900))


def test_what_is_asked_for_is_sent_again_once() -> None:
    sender = sender_with(10)
    flush(sender, 0)
    sender.on_ack(ack(2, (3, 2), (7, 1)), 1_000)
    sender.on_ack(ack(2, (3, 2)), 1_000)
    assert seqs(flush(sender, 1_000)) == [3, 4, 7]
    sender.on_ack(ack(2, (3, 2)), 1_200)
    assert not flush(sender, 1_200), "the repetition may still be under way"
    sender.on_ack(ack(2, (3, 2)), 1_000 + NAK_US)
    assert seqs(flush(sender, 1_000 + NAK_US)) == [3, 4]


def test_what_is_acknowledged_is_not_sent_again() -> None:
    sender = sender_with(10)
    flush(sender, 0)
    sender.on_ack(ack(2, (2, 3)), 1_000)
    sender.on_ack(ack(4), 1_000)
    assert seqs(flush(sender, 1_000)) == [4]


@pytest.mark.parametrize(
    "stale", [ack(11), ack(0, (0, 5)), ack(3, (7, 1)), ack(1 << 63, (0, 1 << 31)), ack(9, epoch=2)]
)
def test_impossible_and_overtaken_acknowledgements(stale: Ack) -> None:
    sender = sender_with(10)
    flush(sender, 0)
    sender.on_ack(ack(5), 1)
    sender.on_ack(stale, 2)
    assert not flush(sender, 2)
    assert not sender.idle
    sender.on_ack(ack(10), 3)
    assert sender.idle
    assert sender.deadline() is None


def test_a_receiver_that_waits_for_an_abandoned_epoch_is_told() -> None:
    sender = LinkSender(2, context())
    sender.on_ack(ack(5, (5, 1), epoch=1), 0)
    assert flush(sender, 0) == [Announce(2, 0)]


def test_a_silent_sender_announces_and_repeats_the_last() -> None:
    sender = sender_with(3)
    flush(sender, 0)
    assert sender.deadline() == NAK_US
    sender.on_deadline(NAK_US)
    chunks = flush(sender, NAK_US)
    assert announced(chunks) == [3]
    assert seqs(chunks) == [2]
    assert sender.deadline() != NAK_US


def test_what_does_not_fit_the_rest_of_a_datagram_waits_for_the_next() -> None:
    sender = sender_with(3)
    flush(sender, 0)
    sender.on_deadline(NAK_US)
    announcement = CHUNK_BYTES + 4 + 8
    assert sender.next_chunk(announcement - 1, NAK_US) is None
    chunk = sender.next_chunk(announcement, NAK_US)
    assert chunk is not None
    assert parse_chunks_untrusted(chunk) == [Announce(1, 3)]
    assert sender.next_chunk(DATA_BYTES + SEGMENT_BYTES - 1, NAK_US) is None
    assert seqs(flush(sender, NAK_US)) == [2]


def test_a_timeout_repeats_the_oldest_and_halves_the_window() -> None:
    sender = sender_with(100)
    flush(sender, 0)
    waits, now = [], 0
    for _ in range(8):
        at = sender.deadline()
        assert at is not None
        waits.append(at - now)
        now = at
        sender.on_deadline(now)
        chunks = flush(sender, now)
        assert announced(chunks) == [FULL_WINDOW]
    assert seqs(chunks) == [0]
    assert waits[-1] >= waits[2] * 4
    assert max(waits) <= TIMING.link_retransmit_ceiling_us * 5 // 4
    sender.on_ack(ack(FULL_WINDOW), now)
    narrow = len(seqs(flush(sender, now)))
    assert WINDOW_FLOOR_SEGMENTS <= narrow < FULL_WINDOW // 2
    for next_seq in range(FULL_WINDOW + narrow, 100, 4):
        sender.on_ack(ack(next_seq), now)
        flush(sender, now)
    assert sender._window_bytes == LIMITS.link_window_bytes


def repeating_a_window() -> tuple[LinkSender, int]:
    """A whole window lost, and the window halved since to five segments: these were repeated."""
    sender = sender_with(100)
    flush(sender, 0)
    now = 0
    while sender._window_bytes > 500:
        now = sender.deadline() or 0
        sender.on_deadline(now)
        flush(sender, now)
    now += 1_000_000
    sender.on_ack(ack(0, (0, FULL_WINDOW)), now)
    assert seqs(flush(sender, now)) == list(range(5))
    return sender, now


def test_repetitions_are_paced() -> None:
    sender, now = repeating_a_window()
    assert not flush(sender, now)
    resume_at = sender.deadline()
    assert resume_at == now + TIMING.link_ack_us
    assert seqs(flush(sender, resume_at)) == list(range(5, 10))


def test_new_segments_do_not_wait_while_repetitions_pause() -> None:
    sender, now = repeating_a_window()
    sender.on_ack(ack(FULL_WINDOW - 2), now)
    first = FULL_WINDOW
    assert seqs(flush(sender, now)) == [first, first + 1, first + 2, first + 3]
    resume_at = sender.deadline()
    assert resume_at == now + TIMING.link_ack_us
    assert seqs(flush(sender, resume_at)) == [FULL_WINDOW - 2, FULL_WINDOW - 1]


def test_slow_networks_get_patient_senders() -> None:
    sender = LinkSender(1, context())
    now = 0
    for number in range(20):
        sender.push(b"x")
        flush(sender, now)
        now += 200_000
        sender.on_ack(ack(number + 1), now)
    sender.push(b"x")
    flush(sender, now)
    at = sender.deadline()
    assert at is not None
    assert at - now > 200_000


# --- the receiver -----------------------------------------------------------------------------


class Receiving:
    """A receiver, fed one segment to a datagram; each segment is one message: its number."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.link = LinkReceiver(1, context(limits))
        self.bodies: list[bytes] = []

    def take(self, *numbers: int, now: int = 0) -> None:
        for number in numbers:
            body = number.to_bytes(2, "big")
            self.link.on_data(Data(1, number, b"\0\0\0\x02" + body), now, self.bodies)
            self.link.end_datagram(now)

    @property
    def numbers(self) -> list[int]:
        return [int.from_bytes(body, "big") for body in self.bodies]

    def ack(self, now: int) -> Ack:
        (chunk,) = parse_chunks_untrusted(self.link.take_ack(now))
        assert isinstance(chunk, Ack)
        return chunk


def test_any_order_becomes_the_order() -> None:
    random = Random(5)
    for _ in range(50):
        numbers = list(range(30)) * 2
        random.shuffle(numbers)
        receiving = Receiving()
        receiving.take(*numbers)
        assert receiving.numbers == list(range(30))
        assert receiving.ack(0) == ack(30)
        assert not receiving.link._gaps
        assert not receiving.link._parts
        assert receiving.link._parts_bytes == 0


def test_an_acknowledgement_waits_for_company() -> None:
    receiving = Receiving()
    receiving.take(0, now=100)
    receiving.take(1, now=200)
    assert receiving.link.owes_ack
    assert receiving.link.deadline() == 100 + TIMING.link_ack_us
    assert receiving.ack(200) == ack(2)
    assert not receiving.link.owes_ack
    assert receiving.link.deadline() is None


def test_a_quarter_of_the_window_is_acknowledged_at_once() -> None:
    receiving = Receiving(evolve(LIMITS, link_window_bytes=6 * 4 * 3))
    receiving.take(0, 1, now=100)
    assert receiving.link.deadline() != 100
    receiving.take(2, now=100)
    assert receiving.link.deadline() == 100


def test_a_duplicate_is_acknowledged_again() -> None:
    receiving = Receiving()
    receiving.take(0)
    receiving.ack(0)
    receiving.take(0)
    assert receiving.link.owes_ack
    assert receiving.ack(0) == ack(1)


def test_a_gap_is_asked_for_after_three_later_datagrams() -> None:
    receiving = Receiving()
    receiving.take(0, 2, 3, now=10)
    assert receiving.ack(10) == ack(1)
    receiving.take(4, now=20)
    assert receiving.link.deadline() == 20
    assert receiving.ack(20) == ack(1, (1, 1))


def test_or_after_a_time_and_then_ever_more_slowly() -> None:
    receiving = Receiving()
    receiving.take(0, 2, now=0)
    receiving.ack(0)
    asked_at = []
    for _ in range(6):
        now = receiving.link.deadline()
        assert now is not None
        asked_at.append(now)
        assert receiving.ack(now) == ack(1, (1, 1))
    assert asked_at[0] == NAK_US
    waits = [later - earlier for earlier, later in pairwise(asked_at)]
    assert waits[0] <= NAK_US * 5 // 4
    assert waits[3] >= NAK_US * 3
    assert max(waits) <= NAK_US * 5
    assert len(set(waits[3:])) > 1, "jitter"


def test_a_filled_gap_is_not_asked_for() -> None:
    receiving = Receiving()
    receiving.take(0, 2, 1)
    receiving.ack(0)
    assert receiving.link.deadline() is None


def test_an_announcement_reveals_a_lost_tail_and_is_answered_at_once() -> None:
    receiving = Receiving()
    receiving.take(0)
    receiving.link.on_announce(Announce(1, 3), 50)
    assert receiving.link.deadline() == 50
    assert receiving.ack(50) == ack(1, (1, 2))
    receiving.take(1, 2)
    receiving.link.on_announce(Announce(1, 3), 60)
    assert receiving.ack(60) == ack(3)


def test_many_gaps_are_named_in_turns() -> None:
    receiving = Receiving(evolve(LIMITS, link_window_fragments=200))
    receiving.take(*range(1, 100, 2), now=0)
    receiving.ack(-1)
    first = receiving.ack(NAK_US)
    second = receiving.ack(NAK_US)
    assert first.missing == tuple((2 * i, 1) for i in range(RANGES_MAX))
    assert second.missing == tuple((2 * i, 1) for i in range(RANGES_MAX, 50))


def test_what_is_out_of_order_is_bounded() -> None:
    limits = evolve(LIMITS, link_window_fragments=20, link_reorder_bytes=6 * 5)
    receiving = Receiving(limits)
    receiving.take(20, 60_000)
    receiving.link.on_announce(Announce(1, 1 << 40), 0)
    assert len(receiving.link._gaps) == 20
    receiving.take(*range(19, 0, -1))
    assert receiving.link._parts_bytes == 30
    receiving.take(*range(20))
    assert receiving.numbers == list(range(20))


def test_a_stream_that_cannot_be_read_is_refused() -> None:
    receiving = Receiving()
    receiving.link.on_data(Data(1, 0, b"\xff\xff\xff\xff"), 0, receiving.bodies)
    assert parse_chunks_untrusted(receiving.link.take_ack(0)) == [Refuse(1)]
    receiving.take(1)
    assert parse_chunks_untrusted(receiving.link.take_ack(0)) == [Refuse(1)]
    assert not receiving.bodies
