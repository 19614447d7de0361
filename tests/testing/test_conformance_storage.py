"""The built-in storages pass their suite, and for every property there is one that does not."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest
from attrs import evolve
from diary import Diary, frame

from distinv.entry import Entry, NodeId
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    Recovered,
    StorageContext,
    StorageFactory,
    TruncateRecord,
)
from distinv.storage.format import SECTOR_BYTES
from distinv.storage.journal import Journal, journal_storage
from distinv.storage.memory import MemoryStorage
from distinv.testing import StorageSuite


class Shelf:
    """Storages in memory that are found again under their directory."""

    def __init__(self) -> None:
        self._kept: dict[Path, MemoryStorage] = {}

    def __call__(self, context: StorageContext) -> MemoryStorage:
        return self._kept.setdefault(context.data_dir, MemoryStorage())


def small_journal(context: StorageContext) -> Journal:
    """One whose segments are full after a few commits."""
    return Journal(context.data_dir, segment_bytes=8 * SECTOR_BYTES)


TestJournal = StorageSuite.of(journal_storage)
TestSmallJournal = StorageSuite.of(small_journal)
TestMemory = StorageSuite.of(Shelf())
TestDiary = StorageSuite.of(Diary)


class Presumptuous(Diary):
    """Knows who it is before it was told."""

    def recover(self) -> Recovered:
        found = super().recover()
        return evolve(found, node=found.node or NodeId(1))


class Alarmist(Diary):
    """A new file is a torn one."""

    def recover(self) -> Recovered:
        found = super().recover()
        return evolve(found, torn=found.torn or found.node is None)


class Unborn(Diary):
    def commit(self, records: Sequence[Record]) -> None:
        super().commit([record for record in records if not isinstance(record, BirthRecord)])


class Firm(Diary):
    """Keeps its first promise."""

    def recover(self) -> Recovered:
        self.promised = False
        return super().recover()

    def commit(self, records: Sequence[Record]) -> None:
        kept = []
        for record in records:
            if not (isinstance(record, PromiseRecord) and self.promised):
                kept.append(record)
            self.promised = self.promised or isinstance(record, PromiseRecord)
        super().commit(kept)


class Overwriting(Diary):
    """Writes at the front again after every start."""

    def recover(self) -> Recovered:
        found = super().recover()
        self.before = 0
        return found

    def write(self, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.before)
            file.write(data)
        self.before += len(data)


class Nostalgic(Diary):
    """Reads what was truncated."""

    def recover(self) -> Recovered:
        self.seen: dict[int, Entry] = {}
        return super().recover()

    def commit(self, records: Sequence[Record]) -> None:
        super().commit(records)
        self.seen |= {entry.index: entry for entry in self.kept._durable.entries}

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        self.check()
        return [self.seen[index] for index in range(first, last + 1)]


class Tidy(Diary):
    """Truncates first, writes then."""

    def commit(self, records: Sequence[Record]) -> None:
        super().commit(sorted(records, key=lambda each: not isinstance(each, TruncateRecord)))


class Hoarding(Diary):
    """Forgets nothing."""

    def commit(self, records: Sequence[Record]) -> None:
        super().commit([record for record in records if not isinstance(record, BaseRecord)])


class Sentimental(Diary):
    """Does not part with a log because a snapshot says another thing."""

    def commit(self, records: Sequence[Record]) -> None:
        log = self.kept._durable
        kept = [
            record
            for record in records
            if not isinstance(record, BaseRecord)
            or log.position(record.position.index) == record.position
        ]
        super().commit(kept)


class Hasty(Diary):
    """Moves its base first."""

    def commit(self, records: Sequence[Record]) -> None:
        super().commit(sorted(records, key=lambda each: not isinstance(each, BaseRecord)))


class Strict(Diary):
    """Refuses to commit nothing."""

    def commit(self, records: Sequence[Record]) -> None:
        if not records:
            raise StorageError("nothing to commit")
        super().commit(records)


class Narrow(Diary):
    def write(self, data: bytes) -> None:
        if len(data) > 1 << 20:
            raise StorageError("too much for one commit")
        super().write(data)


class Lively(Diary):
    """What was recovered is the log itself."""

    def recover(self) -> Recovered:
        return evolve(super().recover(), entries=self.kept._durable.entries)


class Generous(Diary):
    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return super().read(first, last, 1 << 30)


class Stingy(Diary):
    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return super().read(first, last, max_bytes) if max_bytes > 100 else []


class Obliging(Diary):
    """What is not there is left out."""

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        self.check()
        return self.kept._durable.entries[max(0, first - 1) : max(0, last)]


class Faithful(Diary):
    """Serves one thread, as an SQLite connection does."""

    def recover(self) -> Recovered:
        self.thread = threading.get_ident()
        return super().recover()

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        if threading.get_ident() != self.thread:
            raise RuntimeError("wrong thread")
        return super().read(first, last, max_bytes)


class Piecemeal(Diary):
    """Writes its records one by one."""

    def commit(self, records: Sequence[Record]) -> None:
        for record in records:
            super().commit([record])


class Forgiving(Diary):
    """A commit that failed may be tried again."""

    def commit(self, records: Sequence[Record]) -> None:
        self.check()
        before = self.kept
        try:
            super().commit(records)
        except StorageError:
            self.refusal, self.kept = "", MemoryStorage()
            self.kept.recover()
            self.kept.commit([IdentityRecord(7, "shop")])
            assert before is not self.kept
            raise


class Unruly(Diary):
    """Raises what comes to its mind."""

    def check(self) -> None:
        if self.refusal:
            raise ValueError(self.refusal)


class Undead(Diary):
    """Serves after it was closed."""

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        return self.kept.read(first, last, max_bytes)


class Unlocked(Diary):
    def lock(self) -> None:
        pass


class Buffered(Diary):
    """Writes when there is something to write for."""

    waiting = b""

    def write(self, data: bytes) -> None:
        self.waiting += data
        if len(self.waiting) > 20_000:
            self.drain()

    def drain(self) -> None:
        waiting, self.waiting = self.waiting, b""
        super().write(waiting)

    def close(self) -> None:
        if self.descriptor >= 0:
            self.drain()
        super().close()


class Hopeful(Diary):
    """Takes damage for a torn end."""

    def replay(self, data: bytes) -> int:
        try:
            return super().replay(data)
        except CorruptLog as error:
            return int(str(error).split("byte ")[1])


class Gullible(Diary):
    """Has no checksums."""

    def replay(self, data: bytes) -> int:
        at = 0
        decoder = msgspec.msgpack.Decoder(list[Record])
        while at + 12 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            body = data[at + 12 : at + 12 + length]
            if len(body) < length:
                break
            try:
                self.kept.commit(decoder.decode(body))
            except msgspec.MsgspecError as error:
                raise CorruptLog(str(error)) from error
            at += 12 + length
        return at


class Ragged(Diary):
    """Keeps the half of a commit that is there."""

    def write(self, data: bytes) -> None:
        records = msgspec.msgpack.Decoder(list[Record]).decode(data[12:])
        super().write(b"".join(frame(msgspec.msgpack.encode([record])) for record in records))


GAP = "a gap in the log"

REJECTED: list[tuple[str, StorageFactory, dict[str, object]]] = [
    ("test_a_blank_directory_holds_nothing", Presumptuous, {}),
    ("test_a_blank_directory_holds_nothing", Alarmist, {}),
    ("test_what_is_committed_is_there_after_a_restart", Unborn, {}),
    ("test_the_last_promise_and_the_last_birth_count", Firm, {}),
    ("test_what_was_committed_goes_on_after_every_restart", Overwriting, {}),
    ("test_a_truncated_tail_is_replaced", Nostalgic, {}),
    ("test_one_commit_may_truncate_and_write_repeatedly", Tidy, {}),
    ("test_a_base_that_is_in_the_log_forgets_what_lies_before", Hoarding, {}),
    (
        "test_a_base_that_is_not_in_the_log_forgets_everything",
        Sentimental,
        {"what": "of another history"},
    ),
    ("test_one_commit_may_move_the_base_among_other_records", Hasty, {}),
    ("test_reading_what_a_base_forgot_is_refused", Nostalgic, {"first": 1, "last": 1}),
    ("test_a_commit_of_nothing_changes_nothing", Strict, {}),
    ("test_a_large_commit_is_one", Narrow, {}),
    ("test_what_was_recovered_stays_what_it_was", Lively, {}),
    ("test_reading_gives_the_range_up_to_about_the_bytes_asked_for", Generous, {}),
    ("test_reading_gives_the_range_up_to_about_the_bytes_asked_for", Stingy, {}),
    ("test_reading_what_is_not_there_is_refused", Obliging, {"first": 1, "last": 3}),
    ("test_other_threads_read_while_one_commits", Faithful, {}),
    ("test_a_commit_that_does_not_fit_ends_it_and_leaves_nothing", Piecemeal, {"what": GAP}),
    ("test_a_commit_that_does_not_fit_ends_it_and_leaves_nothing", Forgiving, {"what": GAP}),
    ("test_it_is_used_between_recover_and_close", Unruly, {}),
    ("test_it_is_used_between_recover_and_close", Undead, {}),
    ("test_a_directory_is_locked_while_it_is_open", Unlocked, {}),
    ("test_a_commit_that_returned_is_on_disk", Buffered, {}),
    (
        "test_a_killed_process_loses_nothing_that_was_acknowledged",
        Buffered,
        {"acknowledged": 1},
    ),
    (
        "test_a_killed_process_that_forgets_loses_nothing_else",
        Buffered,
        {"acknowledged": 12},
    ),
    ("test_files_that_end_early_give_whole_commits_or_an_error", Ragged, {}),
    ("test_a_flipped_bit_is_never_served", Gullible, {}),
    ("test_a_flipped_bit_is_never_served", Hopeful, {}),
]


@pytest.mark.parametrize(("name", "factory", "arguments"), REJECTED)
def test_a_broken_storage_is_rejected(
    name: str, factory: StorageFactory, arguments: dict[str, object], tmp_path: Path
) -> None:
    check = partial(getattr(StorageSuite.of(factory)(), name), tmp_path, **arguments)
    try:
        with pytest.raises((AssertionError, StorageError)):
            check()
    except pytest.skip.Exception as skipped:
        raise AssertionError("it was skipped") from skipped


def test_every_property_rejects_something() -> None:
    names = {name for name in dir(StorageSuite) if name.startswith("test_")}
    assert names == {name for name, _, _ in REJECTED}


def test_a_storage_in_memory_has_no_files_to_damage(tmp_path: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="keeps nothing on disk"):
        StorageSuite.of(Shelf())().test_a_flipped_bit_is_never_served(tmp_path)


def test_a_failure_tells_which_bit(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"bit \d of byte \d+ of diary was flipped") as raised:
        StorageSuite.of(Hopeful)().test_a_flipped_bit_is_never_served(tmp_path)
    assert "entries" in str(raised.value)
