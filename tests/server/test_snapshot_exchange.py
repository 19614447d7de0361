"""Giving snapshots and getting them, when the other side is slow, wrong, or means ill."""

from __future__ import annotations

import pytest
from attrs import define, evolve, field

from distinv import config
from distinv.entry import Ballot, NodeId, Position, SnapshotHead, Voter, VoterSet
from distinv.server.snapshot_desk import SnapshotDesk
from distinv.server.snapshot_fetch import Fetch
from distinv.wire.messages import SnapshotPart, SnapshotPull

TIMING = config.test().timing
LIMITS = evolve(config.test().limits, snapshot_piece_bytes=100, snapshot_takers=2)
ANNE, BERT, CARL = NodeId(1), NodeId(2), NodeId(3)
ANY = SnapshotPull(b"", 0, 5)
"""For who has five entries and nothing of a snapshot."""
LATER = 100 * TIMING.snapshot_pace_us
VOTERS = VoterSet("shop", 7, (Voter(1, "anne"),))


def head(index: int, size: int = 250, digest: bytes = b"d" * 16) -> SnapshotHead:
    ballot = Ballot(1, 1)
    position = Position(index, ballot, b"h" * 16)
    return SnapshotHead(position, 1_000, 1, ballot, VOTERS, size, digest)


@define
class Copy:
    """A finished snapshot of numbered bytes."""

    head: SnapshotHead
    closed: bool = False

    def read(self, offset: int, size: int) -> bytes:
        assert not self.closed
        assert 0 <= offset <= self.head.size_bytes
        assert 0 <= size <= LIMITS.snapshot_piece_bytes
        whole = bytes(range(self.head.size_bytes))
        return whole[offset : offset + size]

    def close(self) -> None:
        self.closed = True


# --- the giver ----------------------------------------------------------------------------------


@define
class Desk:
    """A desk, and the copies that were made for it, each of ten entries more."""

    made: list[Copy] = field(factory=list)
    desk: SnapshotDesk = field(init=False)
    base: int = 0

    def __attrs_post_init__(self) -> None:
        self.desk = SnapshotDesk(lambda: self._make, TIMING, LIMITS)

    def _make(self) -> Copy:
        self.made.append(Copy(head(10 * (len(self.made) + 1))))
        return self.made[-1]

    def work(self, now: int) -> bool:
        """Do what is to be done in a thread; False when there is nothing."""
        work = self.desk.take_work(7, now)
        if work is not None:
            self.desk.made(work(), now)
        return work is not None

    def pull(
        self, now: int, pull: SnapshotPull = ANY, taker: NodeId = ANNE, applied: int = 1_000
    ) -> SnapshotPart | None:
        return self.desk.on_pull(taker, pull, base=self.base, applied=applied, now=now)


@pytest.fixture
def desk() -> Desk:
    """With a snapshot up to entry 10."""
    found = Desk()
    assert found.pull(0) == SnapshotPart(None, 0, b"")
    assert found.work(0)
    return found


def test_all_of_it_is_given_piece_by_piece(desk: Desk) -> None:
    (copy,) = desk.made
    taken = b""
    for turn in range(1, 4):
        part = desk.pull(turn * LATER, SnapshotPull(copy.head.digest, len(taken), 5))
        assert part is not None
        assert (part.head, part.offset) == (copy.head, len(taken))
        taken += part.data
    assert taken == bytes(range(250))


def test_another_snapshot_than_the_one_begun_begins_at_nothing(desk: Desk) -> None:
    part = desk.pull(LATER, SnapshotPull(b"another", 200, 5))
    assert part is not None
    assert (part.offset, part.data) == (0, bytes(range(100)))


@pytest.mark.parametrize("offset", [250, 251, 10**12, 2**63 - 1])
def test_an_offset_beyond_the_end_gets_nothing(desk: Desk, offset: int) -> None:
    part = desk.pull(LATER, SnapshotPull(b"d" * 16, offset, 5))
    assert part is not None
    assert (part.head, part.data) == (desk.made[0].head, b"")


def test_who_asks_without_pause_gets_one_piece_in_its_time(desk: Desk) -> None:
    parts = [desk.pull(LATER) for _ in range(1_000)]
    assert [part is not None for part in parts] == [True] + 999 * [False]
    assert desk.pull(LATER + TIMING.snapshot_pace_us) is not None


def test_few_are_given_at_the_same_time(desk: Desk) -> None:
    strangers = [NodeId(100 + number) for number in range(1_000)]
    given = [taker for taker in strangers if desk.pull(LATER, taker=taker) is not None]
    assert given == strangers[:2]
    assert desk.desk.takers == 2
    assert desk.pull(LATER + TIMING.snapshot_pace_us, taker=CARL) is not None
    assert desk.desk.takers == 1


def test_a_snapshot_is_made_once_however_many_ask() -> None:
    desk = Desk()
    for taker in (ANNE, BERT):
        assert desk.pull(0, taker=taker) == SnapshotPart(None, 0, b"")
    work = desk.desk.take_work(7, 0)
    assert work is not None
    assert desk.pull(LATER) == SnapshotPart(None, 0, b"")
    assert desk.desk.take_work(9, LATER) is None


def test_the_log_behind_a_snapshot_is_kept_from_the_first_moment() -> None:
    """What was compacted while the copy was made would have been missing behind it."""
    desk = Desk()
    desk.pull(0)
    assert desk.desk.floor() is None
    work = desk.desk.take_work(7, 0)
    assert work is not None
    assert desk.desk.floor() == 7
    desk.desk.made(work(), 0)
    assert desk.desk.floor() == 10


def test_nobody_makes_it_copy_the_store_again_and_again(desk: Desk) -> None:
    """Whoever says each time that it needs a newer one than there is."""
    for turn in range(1, 100):
        above = desk.made[-1].head.position.index
        desk.pull(turn * LATER, SnapshotPull(b"", 0, above))
        desk.work(turn * LATER)
    passed = 99 * LATER
    assert len(desk.made) == 1 + passed // TIMING.snapshot_rest_us
    assert [copy.closed for copy in desk.made] == [True] * (len(desk.made) - 1) + [False]


def test_a_snapshot_in_use_is_not_taken_away_by_who_wants_a_newer_one(desk: Desk) -> None:
    assert desk.pull(LATER, SnapshotPull(b"", 0, 10), BERT) == SnapshotPart(None, 0, b"")
    part = desk.pull(LATER, taker=ANNE)
    assert part is not None
    assert part.head == desk.made[0].head


def test_who_is_ahead_of_the_store_makes_no_work(desk: Desk) -> None:
    rested = TIMING.snapshot_rest_us
    for above in (1_000, 1_001, 2**63 - 1):
        rested += LATER
        assert desk.pull(rested, SnapshotPull(b"", 0, above)) == SnapshotPart(None, 0, b"")
        assert not desk.work(rested)
    assert not desk.made[0].closed


def test_a_copy_that_fails_is_made_again_after_a_rest() -> None:
    desk = Desk()
    desk.pull(0)
    assert desk.desk.take_work(7, 0) is not None
    desk.desk.failed()
    tries = 0
    for turn in range(1, 100):
        desk.pull(turn * LATER)
        if desk.desk.take_work(9, turn * LATER) is not None:
            desk.desk.failed()
            tries += 1
    assert tries == 99 * LATER // TIMING.snapshot_rest_us


def test_one_behind_the_log_is_replaced(desk: Desk) -> None:
    desk.base = 11  # this server installed a snapshot itself
    at = TIMING.snapshot_rest_us
    assert desk.pull(at) == SnapshotPart(None, 0, b"")
    assert desk.made[0].closed
    assert desk.work(at)
    part = desk.pull(at + LATER)
    assert part is not None
    assert part.head == desk.made[1].head


def test_it_goes_when_nobody_asks_any_more(desk: Desk) -> None:
    desk.pull(LATER)
    assert desk.desk.floor() == 10
    due = desk.desk.deadline()
    assert due == LATER + TIMING.link_idle_us
    desk.desk.on_deadline(due - 1)
    assert not desk.made[0].closed
    desk.desk.on_deadline(due)
    assert desk.made[0].closed
    assert (desk.desk.floor(), desk.desk.deadline()) == (None, None)


# --- the taker ----------------------------------------------------------------------------------


@define
class Shelf:
    """Pieces as they were written, and how often it was begun anew."""

    begun: list[SnapshotHead] = field(factory=list)
    data: bytes = b""
    resumed: tuple[SnapshotHead, int] | None = None

    def resume(self) -> tuple[SnapshotHead, int] | None:
        return self.resumed

    def begin(self, head: SnapshotHead) -> None:
        self.begun.append(head)
        self.data = b""

    def write(self, offset: int, data: bytes) -> None:
        assert offset == len(self.data)
        self.data += data
        assert len(self.data) <= self.begun[-1].size_bytes


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def fetch(shelf: Shelf) -> Fetch:
    found = Fetch(shelf, TIMING, LIMITS)
    found.want(ANNE, 5, 0)
    return found


def ask(fetch: Fetch, now: int) -> SnapshotPull:
    asked = fetch.on_deadline(5, now)
    assert asked is not None
    return asked[1]


def test_it_is_fetched_and_complete(fetch: Fetch, shelf: Shelf) -> None:
    whole, now = head(10), 0
    while fetch.complete is None:
        pull = ask(fetch, now)
        data = bytes(range(250))[pull.offset : pull.offset + 100]
        fetch.on_part(ANNE, SnapshotPart(whole, pull.offset, data), now)
        now += TIMING.snapshot_pace_us
    assert fetch.complete == whole
    assert shelf.data == bytes(range(250))
    assert (fetch.deadline(), fetch.on_deadline(5, now)) == (None, None)


@pytest.mark.parametrize("size", [0, LIMITS.snapshot_bytes_max + 1, 2**63 - 1])
def test_a_head_that_lies_about_its_size_ends_it(fetch: Fetch, shelf: Shelf, size: int) -> None:
    """It was asked for again at once, over and over, and nobody was told why."""
    ask(fetch, 0)
    problem = fetch.on_part(ANNE, SnapshotPart(head(10, size), 0, b"x" * 100), 0)
    assert problem == f"has a snapshot of {size} bytes, at most {LIMITS.snapshot_bytes_max} fit"
    assert not fetch.under_way
    assert shelf.begun == []
    fetch.want(BERT, 5, 0)
    assert fetch.deadline() == TIMING.snapshot_rest_us


def test_more_than_the_head_says_is_not_kept(fetch: Fetch, shelf: Shelf) -> None:
    ask(fetch, 0)
    fetch.on_part(ANNE, SnapshotPart(head(10, 30), 0, b"x" * 100), 0)
    assert (fetch.complete, shelf.data) == (head(10, 30), b"x" * 30)


@pytest.mark.parametrize("offset", [1, 99, 250, 2**63 - 1])
def test_a_piece_of_another_place_is_not_kept(fetch: Fetch, shelf: Shelf, offset: int) -> None:
    ask(fetch, 0)
    fetch.on_part(ANNE, SnapshotPart(head(10), offset, b"x" * 100), 0)
    assert (shelf.data, fetch.complete) == (b"", None)
    assert ask(fetch, LATER).offset == 0


def test_who_was_not_asked_is_not_heard(fetch: Fetch, shelf: Shelf) -> None:
    fetch.on_part(ANNE, SnapshotPart(head(10), 0, b"x" * 100), 0)  # not asked yet
    ask(fetch, 0)
    fetch.on_part(BERT, SnapshotPart(head(10), 0, b"x" * 100), 0)
    assert shelf.begun == []


@pytest.mark.parametrize(
    "answer",
    [SnapshotPart(None, 0, b""), SnapshotPart(head(5), 0, b"x"), SnapshotPart(head(10), 0, b"x")],
)
def test_a_question_has_one_answer(fetch: Fetch, shelf: Shelf, answer: SnapshotPart) -> None:
    """Else a flood of them would put the next question off for ever, or write without pause."""
    ask(fetch, 0)
    fetch.on_part(ANNE, answer, 0)
    due = fetch.deadline()
    for turn in range(1_000):
        fetch.on_part(ANNE, answer, turn)
        fetch.on_part(ANNE, SnapshotPart(head(11 + turn), 0, b"x"), turn)
    assert fetch.deadline() == due
    assert len(shelf.begun) <= 1


def test_another_snapshot_in_the_middle_begins_anew(fetch: Fetch, shelf: Shelf) -> None:
    ask(fetch, 0)
    fetch.on_part(ANNE, SnapshotPart(head(10), 0, b"x" * 100), 0)
    assert ask(fetch, LATER).offset == 100
    other = head(20, digest=b"e" * 16)
    fetch.on_part(ANNE, SnapshotPart(other, 0, b"y" * 100), LATER)
    assert (shelf.begun, shelf.data) == ([head(10), other], b"y" * 100)
    assert ask(fetch, 2 * LATER) == SnapshotPull(b"e" * 16, 100, 5)


def test_after_one_that_was_refused_the_next_is_asked_for_after_a_rest(fetch: Fetch) -> None:
    """One of a later format was fetched over and over, as fast as the link carried it."""
    now = LATER
    fetch.refuse(now)
    rested = now + TIMING.snapshot_rest_us
    for source in (ANNE, BERT):
        fetch.want(source, 5, now)
        assert fetch.deadline() == rested
        assert fetch.on_deadline(5, rested - 1) is None
        assert fetch.under_way
    assert fetch.on_deadline(5, rested) == (BERT, SnapshotPull(b"", 0, 5))


def test_every_refusal_makes_the_rest_longer_until_one_is_installed(fetch: Fetch) -> None:
    """All of a snapshot of a later format was fetched six times a minute, for ever."""
    now, rests = 0, []
    for _ in range(8):
        fetch.refuse(now)
        fetch.want(ANNE, 5, now)
        due = fetch.deadline()
        assert due is not None
        rests.append(due - now)
        now = due
    first, most = TIMING.snapshot_rest_us, TIMING.snapshot_rest_ceiling_us
    assert rests == [min(first * 2**turn, most) for turn in range(8)]
    assert rests[-1] == most
    fetch.installed()
    fetch.refuse(now)
    fetch.want(ANNE, 5, now)
    assert fetch.deadline() == now + first


def test_one_that_never_grows_is_given_up(fetch: Fetch, shelf: Shelf) -> None:
    now = 0
    while fetch.under_way:
        if fetch.on_deadline(5, now) is not None:
            fetch.on_part(ANNE, SnapshotPart(head(10), 7, b"x"), now)
        assert now <= TIMING.link_idle_us
        now = fetch.deadline() or now
    assert shelf.data == b""


def test_it_is_gone_on_with_after_a_restart(shelf: Shelf) -> None:
    shelf.resumed = head(10), 200
    fetch = Fetch(shelf, TIMING, LIMITS)
    fetch.want(ANNE, 5, 0)
    assert ask(fetch, 0) == SnapshotPull(b"d" * 16, 200, 5)


def test_what_was_begun_and_is_of_no_use_any_more_is_begun_anew(shelf: Shelf) -> None:
    shelf.resumed = head(10), 200
    fetch = Fetch(shelf, TIMING, LIMITS)
    fetch.want(ANNE, 10, 0)
    assert fetch.on_deadline(10, 0) == (ANNE, SnapshotPull(b"", 0, 10))


def test_another_server_goes_on_where_one_was_left(fetch: Fetch) -> None:
    ask(fetch, 0)
    fetch.on_part(ANNE, SnapshotPart(head(10), 0, b"x" * 100), 0)
    fetch.want(BERT, 5, LATER)
    assert fetch.on_deadline(5, LATER) == (BERT, SnapshotPull(b"d" * 16, 100, 5))


def test_it_is_not_fetched_to_the_end_when_entries_come_after_all(fetch: Fetch) -> None:
    """Another leader may hold the log that the one before had forgotten."""
    ask(fetch, 0)
    fetch.on_part(ANNE, SnapshotPart(head(10), 0, b"x" * 100), 0)
    assert fetch.on_deadline(6, LATER) is None
    assert not fetch.under_way
