"""Reading a whole journal: every sector is looked at, nothing is written.

The rule that tells a torn end from damage stands in `distinv.storage.format`.

Compaction unlinks segments from the front, and a crash may stop it halfway. What is left then may
begin with one that does not tell by itself what the log was: while it was written, the log was cut
back to before its beginning. Such a scan goes *astray*, and begins anew with the next segment. No
entry is lost by that, for in the end the base must be at or above the beginning of the segment
that the scan began with.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from attrs import define, field

from distinv.entry import NO_HASH, Position
from distinv.errors import CorruptLog, StorageError
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
from distinv.storage.index import JournalState, MisfitError, position_of
from distinv.storage.reader import read_entries
from distinv.storage.segments import segment_numbers, segment_path


class TornWrite(NamedTuple):
    segment: int
    sector: int
    number: int


@define
class Scan:
    """What a journal holds, and where it goes on."""

    oldest: int = 0
    """The first segment there is, needed or not; 0 when there is none."""
    state: JournalState = field(factory=JournalState)
    last_number: int = 0
    """Of the last complete write; 0 when there is none."""
    last_hash: bytes = NO_HASH
    highest_number: int = 0
    """Of any write, torn ones too: numbers are never reused."""
    segment: int = 0
    """The one to go on in; 0 when there is none."""
    sector: int = 1
    """The first one in it that was never written, nor any after it; its end in an old format."""
    is_opened: bool = False
    """Whether that segment has a complete write."""
    unused: int = 0
    """The last segment, if it is prepared in this format and never used; else 0."""
    torn: TornWrite | None = None
    """The latest torn write behind the last complete one."""


def scan(files: Files, directory: Path) -> Scan:
    """Read and verify the journal in `directory`. Raises CorruptLog, StorageError."""
    numbers = segment_numbers(files, directory)
    if not numbers:
        return Scan()
    for expected, number in enumerate(numbers, numbers[0]):
        if number != expected:
            raise corrupt(segment_path(directory, expected), 0, "the file is missing")
    for first in numbers:
        try:
            found = _Scanner(files, directory, first).run(numbers[-1])
        except _AstrayError:
            continue
        found.oldest = numbers[0]
        return found
    raise _beginning_missing(directory, numbers[0], "the beginning of the log")


def _beginning_missing(directory: Path, oldest: int, what: str) -> CorruptLog:
    path = segment_path(directory, max(1, oldest - 1))
    return corrupt(path, 0, f"the file is missing, and {what} with it")


class _AstrayError(Exception):
    """What is read does not fit to the beginning, whose own beginning is not known."""


@define
class _Scanner:
    files: Files
    directory: Path
    oldest: int
    """The first segment to read."""
    found: Scan = field(factory=Scan)
    segment: int = 0

    def run(self, newest: int) -> Scan:
        for number in range(self.oldest, newest + 1):
            path = segment_path(self.directory, number)
            self.segment = number
            try:
                data = self.files.read_durable(path)
                self.read_segment(data)
            except OSError as error:
                raise disk_failure(path, error) from error
            except UnknownVersionError as error:
                raise StorageError(
                    f"{path} has format {error.version}, this program reads 1 to {FORMAT_VERSION}."
                    " Use the version of distinv that wrote it, or move the data directory away"
                    " and start with an empty one: it joins as a new server."
                ) from error
            except DamagedError as error:
                raise corrupt(path, error.sector * SECTOR_BYTES, str(error)) from error
        self.check_beginning()
        return self.found

    def check_beginning(self) -> None:
        """Whether only what the base has forgotten is missing."""
        state, found = self.found.state, self.found
        if self.oldest > 1 and not found.last_number:
            what = "all that was written"
        elif not state.is_anchored:
            what = f"entries {position_of(state.base).index + 1}..{state.origin.index}"
        else:
            return
        raise _beginning_missing(self.directory, self.oldest, what)

    def read_segment(self, data: bytes) -> None:
        version = check_file_head(data, self.segment)
        sector = next_written(data, 1)
        found = self.found
        if sector is None:
            if version == FORMAT_VERSION:
                found.unused = self.segment
                found.segment = found.segment or self.segment
            return
        found.segment, found.is_opened, found.unused = self.segment, False, 0
        while sector is not None:
            found.sector = sector + self.read_at(data, sector)
            sector = next_written(data, found.sector)
        if version != FORMAT_VERSION:
            found.sector = len(data) // SECTOR_BYTES

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
        if head.previous != found.last_number and not self.follows_what_was_dropped():
            raise DamagedError(
                sector,
                f"write {head.previous} is incomplete or missing, and write {head.number} was"
                " built on it",
            )
        known = found.torn == TornWrite(self.segment, sector - head.part, head.number)
        if head.number <= found.highest_number and not known:
            raise DamagedError(sector, f"a sector of write {head.number} is in a wrong place")

    def follows_what_was_dropped(self) -> bool:
        """Whether the writes before went with their segments, as far as can be told here."""
        return self.oldest > 1 and not self.found.last_number

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
        is_first = not found.last_number
        if is_first:  # taken at its word; `check_beginning` asks what it leaves out
            found.state = JournalState.opened(record, first.promised)
        fits = (
            not found.is_opened
            and first.promised == found.state.promised
            and record == found.state.opening(record.previous_hash)
            and (is_first or record.previous_hash == found.last_hash)
        )
        if not fits:
            raise self.misfit(sector, "the opening does not continue the segment before")
        found.state.begin(self.segment)
        return record.previous_hash

    def misfit(self, sector: int, what: str) -> Exception:
        """What to raise for undamaged content in a wrong place."""
        if self.found.state.is_anchored:
            return DamagedError(sector, what)
        return _AstrayError()

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
            raise self.misfit(sector, f"a record does not fit: {error}") from error
        for item, record, end in zip(items, records, ends, strict=True):
            place = record_place(sector, item.offset)
            state.apply(record, end, self.segment, place, item.size_bytes)
            if item.promised != state.promised:
                raise DamagedError(sector, "a record repeats another promise than the one given")

    def position_at(self, index: int) -> Position:
        places = self.found.state.places
        at = index - self.found.state.origin.index - 1
        part = places.part(at, at + 1)
        return read_entries(self.files, self.directory, index, part)[0].position
