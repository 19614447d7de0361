"""What a base makes superfluous goes, segment by segment, and nothing else does."""

from __future__ import annotations

import errno
import os
from concurrent.futures import wait
from pathlib import Path
from random import Random

import pytest
from storage_kit import (
    SMALL_SEGMENT,
    CrashingFiles,
    FailingFiles,
    KeepingFiles,
    QuickFiles,
    journal,
    look,
    reopened,
    segment_names,
)

from distinv.entry import ORIGIN, Ballot, Entry, Position, make_entry
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    PromiseRecord,
    Record,
    TruncateRecord,
)
from distinv.storage.journal import Journal
from distinv.testing.conformance.written import (
    BIRTH,
    IDENTITY,
    PROMISE,
    base_at,
    contents_of,
    log_of,
    records_of,
)


def filled(path: Path, count: int = 20, size_bytes: int = 900) -> list[Entry]:
    """A closed journal with so many entries, two or three in a segment."""
    entries = log_of(*(bytes([number]) * size_bytes for number in range(count)))
    storage, _ = reopened(path)
    storage.commit([IDENTITY, PROMISE, BIRTH])
    for entry in entries:
        storage.commit(records_of([entry]))
    storage.close()
    return entries


def settled(storage: Journal) -> None:
    """Wait for the segments that are being dropped."""
    if storage._dropping is not None:
        wait([storage._dropping])


# --- what goes --------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 7, 19])
def test_segments_below_the_base_go(kept: int, tmp_path: Path) -> None:
    entries = filled(tmp_path)
    before = segment_names(tmp_path)
    storage, _ = reopened(tmp_path)
    base = base_at(entries[19 - kept].position)
    storage.commit([base])
    storage.close()
    after = segment_names(tmp_path)
    assert after == before[-len(after) :], "from the front"
    assert len(after) <= 3 + kept // 2
    expected = (tuple(entries[20 - kept :]), BIRTH, base, PROMISE.ballot)
    found, _ = look(tmp_path)
    assert (found.entries, found.birth, found.base, found.promised) == expected


def test_a_log_that_is_compacted_takes_bounded_room(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    entries = log_of(*(b"x" * (number * 7 % 1_500) for number in range(400)))
    for entry in entries:
        records = records_of([entry])
        if entry.index > 12:
            records.append(base_at(entries[entry.index - 11].position))
        storage.commit(records)
        settled(storage)
        assert len(segment_names(tmp_path)) <= 12
        assert len(storage._state.places) <= 12
        assert len(storage._state.starts) <= 12
    storage.close()
    assert list(look(tmp_path)[0].entries) == entries[390:]


def test_a_snapshot_above_the_end_leaves_one_segment_and_the_next(tmp_path: Path) -> None:
    filled(tmp_path)
    storage, _ = reopened(tmp_path)
    base = base_at(Position(1_000, Ballot(4, 8), bytes(range(16))))
    storage.commit([base])
    entries = log_of(b"on", after=base.position, ballot=Ballot(4, 8))
    storage.commit(records_of(entries))
    storage.close()
    assert len(segment_names(tmp_path)) <= 2
    found, _ = look(tmp_path)
    assert (found.base, found.entries, found.node) == (base, tuple(entries), IDENTITY.node)


def test_promises_behind_a_base_do_not_pile_up(tmp_path: Path) -> None:
    entries = filled(tmp_path, 4)
    storage, _ = reopened(tmp_path)
    storage.commit([base_at(entries[3].position)])
    for number in range(100):
        storage.commit([PromiseRecord(Ballot(10, number))])
        settled(storage)
    storage.close()
    assert len(segment_names(tmp_path)) <= 3
    assert look(tmp_path)[0].promised == Ballot(10, 99)


def test_nothing_goes_without_a_base(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    for number in range(50):
        storage.commit([PromiseRecord(Ballot(10, number))])
    storage.close()
    assert segment_names(tmp_path)[0] == 1
    assert len(segment_names(tmp_path)) > 5


def test_what_was_recovered_is_read_while_it_is_there(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    storage, recovered = reopened(tmp_path)
    storage.commit([base_at(entries[14].position)])
    settled(storage)
    assert list(recovered.entries[15:]) == entries[15:]
    with pytest.raises(StorageError):
        recovered.entries[0]
    storage.close()


class Meddling(QuickFiles):
    """Before a segment is opened to be read, something else happens."""

    def open(self, path: Path, flags: int) -> int:
        if flags == os.O_RDONLY and (first := self.__dict__.pop("first", None)) is not None:
            first()
        return super().open(path, flags)


def test_reading_what_goes_at_that_moment(tmp_path: Path) -> None:
    """The reader learns that the entries are gone, not that a file could not be opened."""
    entries = filled(tmp_path)
    files = Meddling()
    storage = journal(tmp_path, files)
    storage.recover()

    def compact() -> None:
        storage.commit([base_at(entries[14].position)])
        settled(storage)

    files.__dict__["first"] = compact
    with pytest.raises(StorageError, match=r"entries 3\.\.4 are not in the log 16\.\.20"):
        storage.read(3, 4, 10_000)
    assert storage.read(16, 20, 10_000) == entries[15:]
    storage.close()


# --- when it goes -----------------------------------------------------------------------------


def test_nothing_goes_before_the_base_is_durable(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    files.calls.clear()
    storage.commit([base_at(entries[17].position)])
    storage.close()
    names = [name for name, _ in files.calls if name in ("sync_data", "remove", "sync_directory")]
    removed = [what for name, what in files.calls if name == "remove"]
    assert names[0] == "sync_data"
    assert names.count("remove") == len(removed) > 5
    assert removed == sorted(removed), "the oldest first"
    for at, name in enumerate(names):
        assert name != "remove" or names[at + 1] == "sync_directory", "each durably"


def test_nothing_goes_when_the_base_is_not_durable(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    before, names = look(tmp_path), segment_names(tmp_path)
    files = FailingFiles(failing={"sync_data": errno.EIO})
    storage = journal(tmp_path, files)
    storage.recover()
    with pytest.raises(StorageError):
        storage.commit([base_at(entries[17].position)])
    storage.close()
    assert "remove" not in [name for name, _ in files.calls]
    assert segment_names(tmp_path) == names
    assert before[0].entries == tuple(entries)


@pytest.mark.parametrize("operation", ["remove", "sync_directory"])
def test_a_disk_that_refuses_to_drop_stops_the_journal(operation: str, tmp_path: Path) -> None:
    entries = filled(tmp_path)
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    files.failing[operation] = errno.EIO
    base = base_at(entries[17].position)
    storage.commit([base])
    settled(storage)
    files.failing.clear()
    for _ in range(2):
        with pytest.raises(StorageError, match="the system refused"):
            storage.commit([PROMISE])
    storage.close()
    found, _ = look(tmp_path)
    assert (found.base, found.entries) == (base, tuple(entries[18:]))


def test_what_is_left_goes_after_the_next_commit(tmp_path: Path) -> None:
    """A crash came in between; a journal that is only looked at stays as it is."""
    entries = filled(tmp_path)
    storage = journal(tmp_path, KeepingFiles())
    storage.recover()
    storage.commit([base_at(entries[17].position)])
    storage.close()
    left = segment_names(tmp_path)
    assert left[0] == 1
    expected = look(tmp_path)
    assert segment_names(tmp_path) == left
    storage, _ = reopened(tmp_path)
    storage.commit([PROMISE])
    storage.close()
    assert len(segment_names(tmp_path)) <= 3
    assert look(tmp_path) == expected


# --- crashes ----------------------------------------------------------------------------------


class Story:
    """A log that grows, is cut back, compacted and replaced, at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.base: BaseRecord | None = None
        self.log: list[Entry] = []
        self.written = 0

    @property
    def before(self) -> Position:
        return self.base.position if self.base else ORIGIN

    @property
    def last(self) -> Position:
        return self.log[-1].position if self.log else self.before

    def commit(self) -> list[Record]:
        return [self.record() for _ in range(self.random.randint(1, 3))]

    def record(self) -> Record:
        self.written += 1
        random = self.random
        choice = random.random()
        if choice < 0.15:
            return PromiseRecord(Ballot(self.written, 1))
        if choice < 0.2:
            return BirthRecord(None, (self.written,))
        if choice < 0.3:
            del self.log[len(self.log) - min(len(self.log), random.randint(0, 6)) :]
            return TruncateRecord(self.last.index)
        if choice < 0.42 and self.log:
            at = random.randrange(len(self.log))
            self.base = base_at(self.log[at].position)
            del self.log[: at + 1]
            return self.base
        if choice < 0.46:
            index = max(self.before.index + 1, self.last.index + random.randint(-6, 6))
            digest = self.written.to_bytes(16, "big")
            self.base = base_at(Position(index, self.last.ballot, digest))
            self.log.clear()
            return self.base
        size_bytes = random.choice((10, 300, 900, 1_800, 4_000))
        payload = random.randbytes(size_bytes)
        self.log.append(make_entry(self.last, self.last.ballot, self.written, 2, payload))
        return EntryRecord(self.log[-1])


def torn(path: Path, files: CrashingFiles, records: list[Record]) -> None:
    """A commit of which only the first and the third sector are written, at most."""
    storage = journal(path, files)
    storage.recover()
    files.survives = lambda part: part in (0, 2)
    with pytest.raises(StorageError, match="crashed while writing"):
        storage.commit(records)
    files.survives = None
    storage.close()


@pytest.mark.parametrize("seed", range(8))
def test_a_crash_between_any_two_removals(seed: int, tmp_path: Path) -> None:
    """Whatever is still there, what is recovered is the same."""
    story, files = Story(seed), KeepingFiles()
    node = tmp_path / "node"
    storage = journal(node, files)
    storage.recover()
    looked = 0
    for _ in range(70):
        storage.commit(story.commit())
        if story.random.random() < 0.08:
            storage.close()
            large = make_entry(story.last, story.last.ballot, 1, 2, bytes(2_500))
            torn(node, files, [EntryRecord(large)])
            storage = journal(node, files)
            storage.recover()
        settled(storage)
        if not files.removed:
            continue
        storage.close()
        for path in files.removed:
            path.unlink(missing_ok=True)
            found, _ = look(node)
            assert (found.base, list(found.entries)) == (story.base, story.log)
            looked += 1
        files.removed.clear()
        storage = journal(node, files)
        storage.recover()
    storage.close()
    assert looked > 20
    assert look(node)[0].entries == tuple(story.log)


def test_what_is_left_may_begin_in_the_middle_of_a_history(tmp_path: Path) -> None:
    """The second segment was written for entries that are gone: it is no beginning, the third is.

    A crash that leaves the second one as the oldest has to be survived all the same.
    """
    storage = journal(tmp_path, KeepingFiles())
    storage.recover()
    old = log_of(*(b"x" * 1_000 for _ in range(4)))
    for entry in old:
        storage.commit(records_of([entry]))
    new = log_of(*(b"y" * 1_000 for _ in range(8)), after=old[0].position)
    storage.commit([TruncateRecord(1)])
    for entry in new:
        storage.commit(records_of([entry]))
    base = base_at(new[6].position)
    storage.commit([base])
    storage.close()
    expected = look(tmp_path)
    assert expected[0].base == base
    for number in segment_names(tmp_path)[:-2]:
        (tmp_path / "journal" / f"{number:010d}.segment").unlink()
        assert look(tmp_path) == expected, f"without 1..{number}"


# --- what must not go -------------------------------------------------------------------------


def test_a_segment_that_is_needed_is_missed(tmp_path: Path) -> None:
    """The oldest one after a compaction, and every one after it."""
    entries = filled(tmp_path)
    storage, _ = reopened(tmp_path)
    storage.commit([base_at(entries[9].position)])
    storage.close()
    names = segment_names(tmp_path)
    assert len(names) > 3
    for at, number in enumerate(names[:-1]):
        (tmp_path / "journal" / f"{number:010d}.segment").unlink()
        with pytest.raises(CorruptLog, match=f"{number:010d}.segment.*missing") as caught:
            look(tmp_path)
        if at == 0:
            assert "entries 11.." in str(caught.value)


def test_a_spare_segment_alone_is_no_journal(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    storage, _ = reopened(tmp_path)
    while storage._spare is None:
        storage.commit([PROMISE])
    storage.close()
    *used, spare = segment_names(tmp_path)
    assert spare > 1
    for number in used:
        (tmp_path / "journal" / f"{number:010d}.segment").unlink()
    with pytest.raises(CorruptLog, match="all that was written"):
        look(tmp_path)


def test_a_flipped_bit_in_a_compacted_journal_is_found(tmp_path: Path) -> None:
    entries = filled(tmp_path)
    storage = journal(tmp_path, KeepingFiles())
    storage.recover()
    storage.commit([base_at(entries[14].position)])
    storage.commit(records_of(log_of(b"on", after=entries[-1].position)))
    storage.close()
    for number in segment_names(tmp_path)[:3]:
        (tmp_path / "journal" / f"{number:010d}.segment").unlink()
    random, found = Random(3), 0
    for path in sorted((tmp_path / "journal").iterdir()):
        data = path.read_bytes()
        end = len(data.rstrip(b"\0"))
        for at in random.sample(range(end), min(end, 40)):
            path.write_bytes(data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :])
            with pytest.raises(CorruptLog):
                look(tmp_path)
            found += 1
        path.write_bytes(data)
    assert found > 100
    assert look(tmp_path)[0].entries[:5] == tuple(entries[15:])


def test_a_base_larger_than_what_is_left_of_a_segment(tmp_path: Path) -> None:
    entries = filled(tmp_path, 4)
    storage, _ = reopened(tmp_path)
    large = base_at(entries[1].position)
    while storage._segment is not None and storage._segment.sectors_left:
        storage.commit([PROMISE])
    storage.commit([large, *records_of(log_of(b"z" * SMALL_SEGMENT, after=entries[3].position))])
    storage.close()
    storage, recovered = reopened(tmp_path)
    assert contents_of(recovered).base == large
    assert [entry.index for entry in recovered.entries] == [3, 4, 5]
    storage.close()
