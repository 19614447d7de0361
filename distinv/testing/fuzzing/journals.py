"""Target: a data directory whose bytes are not what was written."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from zlib import crc32

from attrs import define, field

from distinv.entry import NO_HASH, ORIGIN, Ballot, EntryKind, NodeId, VoterSet, make_entry
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
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
    encode_file_head,
    encode_write,
)
from distinv.storage.journal import Journal
from distinv.storage.scan import scan
from distinv.testing.fuzzing.decoders import voter_payloads
from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.target import Target

_SEGMENT_BYTES = 4_096
_DIRECTORY = Path("journal")


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
def _written() -> dict[str, bytes]:
    """The segments of a journal of every kind of record, in several writes and files."""
    with TemporaryDirectory() as place:
        journal = Journal(Path(place), segment_bytes=_SEGMENT_BYTES)
        journal.recover()
        voters = VoterSet("shop", 7, ())
        journal.commit([IdentityRecord(NodeId(5), "shop"), BirthRecord(voters, (1, 2))])
        journal.commit([PromiseRecord(Ballot(1, 5))])
        last, ballot = ORIGIN, Ballot(1, 5)
        for number in range(12):
            payload = voter_payloads()[1] if number == 0 else bytes(100 * number)
            kind = EntryKind.VOTERS if number == 0 else EntryKind.COMMANDS
            entry = make_entry(last, ballot, number, kind, payload)
            journal.commit([EntryRecord(entry)])
            if number % 4 == 3:
                journal.commit([TruncateRecord(entry.index - 1)])
            else:
                last = entry.position
        journal.close()
        return {
            path.name: path.read_bytes() for path in sorted((Path(place) / "journal").iterdir())
        }


class Journals:
    """The first byte of an input says which segment the rest is in the place of."""

    def __init__(self, seed: int) -> None:
        self._segments = _written()
        self._names = sorted(self._segments)
        self._mutator = Mutator(Random(seed), list(self._segments.values()))

    def generate(self) -> bytes:
        mutator = self._mutator
        number = mutator.below(len(self._names))
        data = self._segments[self._names[number]]
        choice = mutator.below(10)
        if choice < 4:
            return bytes([number]) + mutator.spoilt(data)
        if choice < 7:
            return bytes([number]) + self._sealed_again(data)
        return bytes([0]) + self._written_anew()

    def _sealed_again(self, data: bytes) -> bytes:
        """One sector spoilt, under a checksum that is right."""
        mutator = self._mutator
        at = SECTOR_BYTES * mutator.below(len(data) // SECTOR_BYTES)
        content = mutator.spoilt(data[at + 4 : at + SECTOR_BYTES])
        content = content.ljust(SECTOR_BYTES - 4, b"\0")[: SECTOR_BYTES - 4]
        return data[:at] + crc32(content).to_bytes(4, "big") + content + data[at + SECTOR_BYTES :]

    def _written_anew(self) -> bytes:
        """A segment with one write whose record is spoilt, and everything around it right."""
        mutator = self._mutator
        first = self._segments[self._names[0]][SECTOR_BYTES:]
        record = first[64 : 64 + 60 + mutator.below(100)]
        body = mutator.restructured(record[RECORD_HEAD_BYTES:])
        head = len(body).to_bytes(4, "big") + bytes(16)
        records = crc32(body, crc32(head)).to_bytes(4, "big") + head + body
        sectors, _ = encode_write(1, 0, NO_HASH, records)
        size_bytes = max(_SEGMENT_BYTES, SECTOR_BYTES + len(sectors))
        return (encode_file_head(1, size_bytes) + sectors).ljust(size_bytes, b"\0")

    def feed(self, data: bytes) -> str:
        number = data[0] % len(self._names) if data else 0
        contents = dict(self._segments)
        contents[self._names[number]] = data[1:]
        try:
            found = scan(_Shelf(contents), _DIRECTORY)
        except CorruptLog:
            return "CorruptLog"
        except StorageError:
            return "StorageError"
        assert found.state.last.index <= 12
        return "torn" if found.torn is not None else "taken"

    def check(self) -> None:
        assert scan(_Shelf(dict(self._segments)), _DIRECTORY).torn is None

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
