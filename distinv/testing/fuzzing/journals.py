"""Target: a data directory whose bytes are not what was written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from zlib import crc32

from attrs import define, field

from distinv.entry import NO_HASH, ORIGIN, Ballot, EntryKind, NodeId, VoterSet, make_entry
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    TruncateRecord,
)
from distinv.storage.files import Files
from distinv.storage.format import (
    RECORD_HEAD_BYTES,
    SECTOR_BYTES,
    OpeningRecord,
    StoredWrite,
    decode_records,
    encode_write,
    next_written,
    read_sector_head,
    read_write,
)
from distinv.storage.journal import Journal
from distinv.storage.scan import scan
from distinv.testing.fuzzing.decoders import voter_payloads
from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.target import Target

_SEGMENT_BYTES = 4_096
_DIRECTORY = Path("journal")
_COMMITS = 12
_IS_LAST = 0x80


@define
class _Shelf(Files):
    """Segment files in memory."""

    contents: dict[str, bytes] = field(factory=dict)
    _opened: dict[int, bytes] = field(factory=dict)
    _next: int = 3

    def names(self, path: Path) -> list[str]:
        return sorted(self.contents)

    def open(self, path: Path, flags: int) -> int:
        self._next += 1
        self._opened[self._next] = self.contents[path.name]
        return self._next

    def close(self, descriptor: int) -> None:
        del self._opened[descriptor]

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        return self._opened[descriptor][offset : offset + size_bytes]

    def read_durable(self, path: Path) -> bytes:
        return self.contents[path.name]


@cache
def _written(*, compacted: bool) -> dict[str, bytes]:
    """The segments of a journal of every kind of record, in several writes and files.

    One that is compacted has lost its first segments, and then its history.
    """
    with TemporaryDirectory() as place:
        journal = Journal(Path(place), segment_bytes=_SEGMENT_BYTES)
        journal.recover()
        voters = VoterSet("shop", 7, ())
        journal.commit([IdentityRecord(NodeId(5), "shop"), BirthRecord(voters, (1, 2))])
        journal.commit([PromiseRecord(Ballot(1, 5))])
        last, ballot = ORIGIN, Ballot(1, 5)
        for number in range(_COMMITS):
            payload = voter_payloads()[1] if number == 0 else bytes(100 * number)
            kind = EntryKind.VOTERS if number == 0 else EntryKind.COMMANDS
            entry = make_entry(last, ballot, number, kind, payload)
            journal.commit([EntryRecord(entry)])
            if number % 4 == 3:
                journal.commit([TruncateRecord(entry.index - 1)])
            else:
                last = entry.position
            if compacted and number in (5, 9):
                # The second time the log ends below, and is forgotten.
                last = last._replace(index=last.index + number - 5)
                journal.commit([BaseRecord(last, number, 1, ballot, voters)])
        journal.close()
        return {
            path.name: path.read_bytes() for path in sorted((Path(place) / "journal").iterdir())
        }


def _writes(data: bytes) -> Iterator[tuple[int, StoredWrite, bytes]]:
    """The complete writes of a true segment: sector, write, and the hash of the one before."""
    sector, previous_hash = next_written(data, 1), NO_HASH
    while sector is not None:
        head = read_sector_head(data, sector)
        assert head is not None
        write = read_write(data, sector, head)
        assert write is not None
        first = next(decode_records(write.body)).record
        if isinstance(first, OpeningRecord):
            previous_hash = first.previous_hash
        yield sector, write, previous_hash
        previous_hash = write.hash
        sector = next_written(data, sector + write.sectors)


class Journals:
    """The first byte of an input says which segment the rest is in the place of.

    Its highest bit says that the segments after that one are not there.
    """

    def __init__(self, seed: int) -> None:
        self._journals = [_written(compacted=False), _written(compacted=True)]
        self._places = [(each, name) for each in self._journals for name in sorted(each)]
        self._mutator = Mutator(Random(seed), [each[name] for each, name in self._places])

    def generate(self) -> bytes:
        mutator = self._mutator
        number = mutator.below(len(self._places))
        segments, name = self._places[number]
        choice = mutator.below(10)
        if choice < 4:
            return bytes([number]) + mutator.spoilt(segments[name])
        if choice < 7:
            return bytes([number]) + self._sealed_again(segments[name])
        return bytes([number | _IS_LAST]) + self._written_anew(segments[name])

    def _sealed_again(self, data: bytes) -> bytes:
        """One sector spoilt, under a checksum that is right."""
        mutator = self._mutator
        at = SECTOR_BYTES * mutator.below(len(data) // SECTOR_BYTES)
        content = mutator.spoilt(data[at + 4 : at + SECTOR_BYTES])
        content = content.ljust(SECTOR_BYTES - 4, b"\0")[: SECTOR_BYTES - 4]
        return data[:at] + crc32(content).to_bytes(4, "big") + content + data[at + SECTOR_BYTES :]

    def _written_anew(self, data: bytes) -> bytes:
        """The last write is one with a spoilt record, and everything around it right."""
        mutator = self._mutator
        writes = list(_writes(data))
        if not writes:
            return data
        sector, write, previous_hash = writes[mutator.below(len(writes))]
        records = list(decode_records(write.body))
        chosen = records[mutator.below(len(records))]
        end = chosen.offset + chosen.size_bytes
        spoilt = mutator.restructured(write.body[chosen.offset + RECORD_HEAD_BYTES : end])
        head = len(spoilt).to_bytes(4, "big") + write.body[chosen.offset + 8 :][:16]
        record = crc32(spoilt, crc32(head)).to_bytes(4, "big") + head + spoilt
        body = write.body[: chosen.offset] + record + write.body[end:]
        sectors, _ = encode_write(write.head.number, write.head.previous, previous_hash, body)
        return (data[: sector * SECTOR_BYTES] + sectors).ljust(len(data), b"\0")[: len(data)]

    def feed(self, data: bytes) -> str:
        first = data[0] if data else 0
        segments, name = self._places[(first & ~_IS_LAST) % len(self._places)]
        contents = {each: segments[each] for each in segments if each <= name or first < _IS_LAST}
        contents[name] = data[1:]
        try:
            found = scan(_Shelf(contents), _DIRECTORY)
        except CorruptLog:
            return "CorruptLog"
        except StorageError:
            return "StorageError"
        state = found.state
        assert state.is_anchored
        assert 0 <= len(state.places) == state.last.index - state.origin.index <= _COMMITS
        return "torn" if found.torn is not None else "taken"

    def check(self) -> None:
        for segments in self._journals:
            assert scan(_Shelf(dict(segments)), _DIRECTORY).torn is None

    def sizes(self) -> dict[str, int]:
        return {}


TARGETS = (
    Target(
        "journal",
        "segments of the journal, from the disk: CorruptLog or StorageError, and the server stops",
        (),
        Journals,
        5_000,
        5_000,
    ),
)
