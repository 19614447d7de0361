"""Reading a whole journal: every sector is looked at, nothing is written.

The rule that tells a torn end from damage stands in `distinv.storage.format`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from attrs import define, field

from distinv.entry import NO_HASH, Position
from distinv.errors import StorageError
from distinv.storage.api import Record
from distinv.storage.failures import corrupt, disk_failure
from distinv.storage.files import Files
from distinv.storage.format import (
    FORMAT_VERSION,
    SECTOR_BYTES,
    DamagedError,
    OpeningRecord,
    SectorHead,
    Stored,
    StoredWrite,
    UnknownVersionError,
    check_file_head,
    decode_records,
    hash_of_write,
    next_written,
    read_sector_head,
    read_write,
    record_place,
)
from distinv.storage.index import JournalState, MisfitError
from distinv.storage.reader import read_entries
from distinv.storage.segments import segment_numbers, segment_path


class TornWrite(NamedTuple):
    segment: int
    sector: int
    number: int


@define
class Scan:
    """What a journal holds, and where it goes on."""

    state: JournalState = field(factory=JournalState)
    last_number: int = 0
    """Of the last complete write; 0 when there is none."""
    last_hash: bytes = NO_HASH
    highest_number: int = 0
    """Of any write, torn ones too: numbers are never reused."""
    segment: int = 0
    """The one to go on in; 0 when there is none."""
    sector: int = 1
    """The first one in it that was never written, nor any after it."""
    is_opened: bool = False
    """Whether that segment has a complete write."""
    unused: int = 0
    """The last segment, if it is prepared and never used; else 0."""
    torn: TornWrite | None = None
    """The latest torn write behind the last complete one."""


def scan(files: Files, directory: Path) -> Scan:
    """Read and verify the journal in `directory`. Raises CorruptLog, StorageError."""
    return _Scanner(files, directory).run()


@define
class _Scanner:
    files: Files
    directory: Path
    found: Scan = field(factory=Scan)
    segment: int = 0
    oldest: int = 0
    """The first segment there is: its opening is taken at its word."""

    def run(self) -> Scan:
        numbers = segment_numbers(self.files, self.directory)
        self.oldest = min(numbers, default=0)
        for expected, number in enumerate(numbers, self.oldest):
            path = segment_path(self.directory, expected)
            if number != expected:
                raise corrupt(path, 0, "the file is missing")
            self.segment = number
            try:
                data = self.files.read_durable(path)
                self.read_segment(data)
            except OSError as error:
                raise disk_failure(path, error) from error
            except UnknownVersionError as error:
                raise StorageError(
                    f"{path} has format {error.version}, this program reads {FORMAT_VERSION}."
                    " Use the version of distinv that wrote it, or move the data directory away"
                    " and start with an empty one: it joins as a new server."
                ) from error
            except DamagedError as error:
                raise corrupt(path, error.sector * SECTOR_BYTES, str(error)) from error
        return self.found

    def read_segment(self, data: bytes) -> None:
        check_file_head(data, self.segment)
        sector = next_written(data, 1)
        found = self.found
        if sector is None:
            found.unused = self.segment
            if not found.segment:
                found.segment = self.segment
            return
        found.segment, found.is_opened, found.unused = self.segment, False, 0
        while sector is not None:
            found.sector = sector + self.read_at(data, sector)
            sector = next_written(data, found.sector)

    def read_at(self, data: bytes, sector: int) -> int:
        """Take in what begins at `sector`. Return how many sectors it took."""
        head = read_sector_head(data, sector)
        assert head is not None, "looked at because it is not zero"
        self.check_head(head, sector)
        write = read_write(data, sector, head) if head.part == 0 else None
        if write is None:
            self.found.torn = TornWrite(self.segment, sector - head.part, head.number)
            self.found.highest_number = head.number
            return 1
        self.take(write, sector)
        return write.sectors

    def check_head(self, head: SectorHead, sector: int) -> None:
        """Whether a sector may stand behind what was read so far: see the rule."""
        found = self.found
        if head.previous != found.last_number and not self.is_first_after_compaction():
            raise DamagedError(
                sector,
                f"write {head.previous} is incomplete or missing, and write {head.number} was"
                " built on it",
            )
        known = found.torn == TornWrite(self.segment, sector - head.part, head.number)
        if head.number <= found.highest_number and not known:
            raise DamagedError(sector, f"a sector of write {head.number} is in a wrong place")

    def is_first_after_compaction(self) -> bool:
        """Whether what came before went with its segments."""
        return self.segment == self.oldest > 1 and not self.found.is_opened

    def take(self, write: StoredWrite, sector: int) -> None:
        """Verify a complete write and apply its records."""
        found = self.found
        stored = self.records_of(write, sector)
        previous_hash = self.check_opening(stored[0], sector)
        number, previous = write.head.number, write.head.previous
        if hash_of_write(previous_hash, number, previous, write.body) != write.hash:
            raise DamagedError(sector, f"write {number} does not continue the chain of writes")
        self.apply(stored, sector)
        found.last_number, found.last_hash = number, write.hash
        found.highest_number = number
        found.is_opened, found.torn = True, None

    def records_of(self, write: StoredWrite, sector: int) -> list[Stored]:
        stored: list[Stored] = []
        try:
            stored.extend(decode_records(write.body))
        except DamagedError as error:
            offset = stored[-1].offset + stored[-1].size_bytes if stored else 0
            place = record_place(sector, offset)
            raise DamagedError(place // SECTOR_BYTES, str(error)) from error
        if not stored:
            raise DamagedError(sector, "a write without records")
        return stored

    def check_opening(self, first: Stored, sector: int) -> bytes:
        """The hash of the write before, after checking that segments begin with an opening."""
        found, record = self.found, first.record
        if not isinstance(record, OpeningRecord):
            if found.is_opened:
                return found.last_hash
            raise DamagedError(sector, "the segment does not begin with its opening")
        is_first = self.segment == self.oldest and not found.is_opened
        if is_first:
            found.state = JournalState.opened(record, first.promised)
        fits = (
            not found.is_opened
            and first.promised == found.state.promised
            and record == found.state.opening(record.previous_hash)
            and (is_first or record.previous_hash == found.last_hash)
        )
        if not fits:
            raise DamagedError(sector, "the opening does not continue the segment before")
        return record.previous_hash

    def apply(self, stored: list[Stored], sector: int) -> None:
        state = self.found.state
        items, records = list[Stored](), list[Record]()
        for item in stored:
            if not isinstance(item.record, OpeningRecord):
                items.append(item)
                records.append(item.record)
        try:
            ends = state.plan(records, self.position_at)
        except MisfitError as error:
            raise DamagedError(sector, f"a record does not fit: {error}") from error
        for item, record, end in zip(items, records, ends, strict=True):
            place = record_place(sector, item.offset)
            state.apply(record, end, self.segment, place, item.size_bytes)
            if item.promised != state.promised:
                raise DamagedError(sector, "a record repeats another promise than the one given")

    def position_at(self, index: int) -> Position:
        places = self.found.state.places
        at = index - self.found.state.base.index - 1
        part = places.part(at, at + 1)
        return read_entries(self.files, self.directory, index, part)[0].position
