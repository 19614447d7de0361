"""The journal's own business: segments, large entries, reading beside a commit."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from storage_kit import SMALL_SEGMENT, QuickFiles, journal, look, reopened

from distinv.entry import HASH_BYTES, NO_BALLOT, NO_HASH, Ballot, Entry
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import EntryRecord, StorageContext, TruncateRecord
from distinv.storage.format import (
    SECTOR_BYTES,
    encode_file_head,
    encode_record,
    encode_write,
)
from distinv.storage.index import JournalState
from distinv.storage.journal import journal_storage
from distinv.storage.scan import scan
from distinv.testing.conformance.written import BIRTH, IDENTITY, PROMISE, log_of, records_of


def segments(path: Path) -> list[int]:
    """The sizes of the segment files."""
    return [file.stat().st_size for file in sorted((path / "journal").iterdir())]


def test_with_its_defaults(tmp_path: Path) -> None:
    storage = journal_storage(StorageContext(data_dir=tmp_path))
    storage.recover()
    entries = log_of(b"x" * 10_000, b"")
    storage.commit([IDENTITY, PROMISE, *records_of(entries)])
    storage.close()
    assert segments(tmp_path) == [8 << 20]
    assert list(look(tmp_path)[0].entries) == entries


def test_segments_follow_one_another(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    storage.commit([IDENTITY, PROMISE, BIRTH])
    entries = log_of(*(bytes([size % 251]) * (size * 7 % 1_900) for size in range(150)))
    for entry in entries:
        storage.commit(records_of([entry]))
    assert storage.read(1, 150, 1 << 20) == entries
    storage.close()
    assert len(segments(tmp_path)) > 30
    assert set(segments(tmp_path)) == {SMALL_SEGMENT}
    storage, recovered = reopened(tmp_path)
    assert list(recovered.entries) == entries
    assert recovered.birth == BIRTH
    assert storage.read(70, 99, 1 << 20) == entries[69:99]
    storage.close()


@pytest.mark.parametrize("payload_bytes", [2_900, 3_000, 3_100, 3_500, 4_096, 5_000, 4 << 20])
def test_an_entry_larger_than_a_segment(payload_bytes: int, tmp_path: Path) -> None:
    """At the beginning, behind others, twice, and with small ones behind it."""
    large = os.urandom(payload_bytes)
    entries = log_of(large, b"small", large, large, b"small", b"small")
    storage, _ = reopened(tmp_path)
    for entry in entries:
        storage.commit(records_of([entry]))
    assert storage.read(1, 6, 100 << 20) == entries
    storage.close()
    storage, recovered = reopened(tmp_path)
    assert list(recovered.entries) == entries
    more = log_of(b"more", after=entries[-1].position)
    storage.commit(records_of(more))
    storage.close()
    assert look(tmp_path)[0].entries == (*entries, *more)


def test_every_size_around_the_edge_of_a_sector_and_a_segment(tmp_path: Path) -> None:
    entries: list[Entry] = []
    for size in [*range(340, 420), *range(3_080, 3_280, 8)]:
        after = entries[-1].position if entries else log_of(b"")[0].position
        if not entries:
            entries = log_of(b"")
        entries += log_of(b"x" * size, after=after)
    storage, _ = reopened(tmp_path)
    for entry in entries:
        storage.commit(records_of([entry]))
    storage.close()
    storage, recovered = reopened(tmp_path)
    assert list(recovered.entries) == entries
    assert [storage.read(entry.index, entry.index, 0)[0] for entry in entries] == entries
    storage.close()


def test_a_restart_uses_the_segment_prepared_before(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    entries = log_of(b"x" * 2_000, b"y" * 2_000)
    storage.commit(records_of(entries[:1]))
    storage.close()
    assert segments(tmp_path) == [SMALL_SEGMENT] * 2
    prepared = tmp_path / "journal" / "0000000002.segment"
    inode = prepared.stat().st_ino
    storage, _ = reopened(tmp_path)
    storage.commit(records_of(entries[1:]))
    storage.close()
    assert prepared.stat().st_ino == inode
    assert list(look(tmp_path)[0].entries) == entries


def test_numbers_go_up_by_one(tmp_path: Path) -> None:
    for count in range(1, 20):
        storage, _ = reopened(tmp_path)
        storage.commit([PROMISE])
        storage.close()
        found = scan(QuickFiles(), tmp_path / "journal")
        assert (found.last_number, found.highest_number) == (count, count)


def test_looking_at_a_journal_changes_nothing(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    storage.commit([IDENTITY, PROMISE, *records_of(log_of(b"x" * 2_000, b"y" * 2_000))])
    storage.close()
    before = {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()}
    look(tmp_path)
    assert before == {file: file.read_bytes() for file in (tmp_path / "journal").iterdir()}


def test_damage_after_recovery_is_found_by_reading(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    entries = log_of(b"a" * 600, b"b" * 600, b"c" * 600)
    storage.commit(records_of(entries))
    segment = tmp_path / "journal" / "0000000001.segment"
    with segment.open("r+b") as file:
        file.seek(SECTOR_BYTES * 2 + 200)
        file.write(b"?")
    with pytest.raises(CorruptLog, match="0000000001"):
        storage.read(1, 3, 1 << 20)
    assert storage.read(3, 3, 1 << 20) == entries[2:]
    with segment.open("r+b") as file:
        file.truncate(SECTOR_BYTES * 4)
    with pytest.raises(CorruptLog, match="ends in the middle"):
        storage.read(3, 3, 1 << 20)
    segment.unlink()
    with pytest.raises(StorageError):
        storage.read(3, 3, 1 << 20)
    storage.close()


def test_reading_beside_commits(tmp_path: Path) -> None:
    """Whatever is read while the log grows is what was written."""
    entries = log_of(*(bytes([number % 256]) * (number * 13 % 1_200) for number in range(400)))
    storage = journal(tmp_path)
    storage.recover()
    storage.commit(records_of(entries[:1]))
    committed = 1
    finished = threading.Event()
    wrong: list[tuple[int, int]] = []
    reads = 0

    def read_all_the_time() -> None:
        nonlocal reads
        while not finished.is_set() or reads < 20:
            last = committed
            first = max(1, last - reads % 50)
            found = storage.read(first, last, 1 << 20)
            if found != entries[first - 1 : last]:
                wrong.append((first, last))
            reads += 1

    readers = [threading.Thread(target=read_all_the_time) for _ in range(2)]
    for reader in readers:
        reader.start()
    for entry in entries[1:]:
        storage.commit([EntryRecord(entry)])
        committed = entry.index
    finished.set()
    for reader in readers:
        reader.join()
    assert reads >= 20
    assert wrong == []
    storage.close()


def test_truncating_across_segments(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    old = log_of(*(b"x" * 1_000 for _ in range(20)))
    for entry in old:
        storage.commit(records_of([entry]))
    new = log_of(*(b"y" * 1_000 for _ in range(6)), after=old[4].position)
    storage.commit([TruncateRecord(5)])
    for entry in new:
        storage.commit(records_of([entry]))
    assert storage.read(1, 11, 1 << 20) == [*old[:5], *new]
    storage.close()
    assert look(tmp_path)[0].entries == (*old[:5], *new)


def _record(body: bytes) -> bytes:
    """`body` as a record with a true checksum."""
    head = struct.pack(">IQQ", len(body), 0, 0)
    return struct.pack(">I", crc32(body, crc32(head))) + head + body


_ENTRY = Entry(1, Ballot(0, 0), 0, 300, b"", bytes(HASH_BYTES))
FORGED = {
    "text that is none": b"\x93\x01\x05\xa2\xff\xfe",
    "nested without end": b"\x91" * 100_000,
    "a number that does not fit": msgspec.msgpack.encode(EntryRecord(_ENTRY)),
}


@pytest.mark.parametrize("body", FORGED.values(), ids=FORGED)
def test_a_record_that_nobody_wrote_stops_the_start(body: bytes, tmp_path: Path) -> None:
    """Under true checksums all the way: the decoder's own errors once came through."""
    opening = encode_record(JournalState().opening(NO_HASH), NO_BALLOT)
    write, _ = encode_write(1, 0, NO_HASH, opening + _record(body))
    size_bytes = SECTOR_BYTES + len(write)
    directory = tmp_path / "journal"
    directory.mkdir()
    head = encode_file_head(1, size_bytes)
    (directory / "0000000001.segment").write_bytes(head + write)
    with pytest.raises(CorruptLog, match="segment"):
        journal(tmp_path).recover()
