"""The built-in storage: an append-only journal in segment files, one sync per commit.

The format, its glossary and the rule for torn ends: `distinv.storage.format`. Reading it all back:
`distinv.storage.scan`. Recovery writes nothing into existing segments; the next commit goes behind
whatever is there.

Compaction: a `BaseRecord` is a record like any other. Once it is durable, the segments that hold
nothing but what it forgot are unlinked, the oldest first, beside the commits that follow; what a
crash leaves of them goes after the first commit of the next run. They are not used again: every
sector that is not zero is taken at its word, so a file would have to be filled with zeros first,
as a new one is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from distinv.config import Limits
from distinv.entry import NO_HASH, Entry, NodeId, Position
from distinv.errors import StorageError
from distinv.storage.api import PromiseRecord, Record, Recovered, StorageContext
from distinv.storage.failures import DISK_FULL, disk_failure
from distinv.storage.files import Files
from distinv.storage.format import (
    SECTOR_BYTES,
    encode_record,
    encode_write,
    record_place,
    sectors_of,
)
from distinv.storage.index import JournalState
from distinv.storage.lock import lock_directory
from distinv.storage.reader import StoredEntries, read_entries
from distinv.storage.scan import Scan, scan
from distinv.storage.segments import (
    SEGMENT_BYTES_MAX,
    Segment,
    drop_segments,
    open_segment,
    prepare_segment,
    remove_unfinished,
)


def _whole_sectors(size_bytes: int) -> int:
    return max(2, -(-size_bytes // SECTOR_BYTES)) * SECTOR_BYTES


def journal_storage(context: StorageContext) -> Journal:
    """The storage factory of the built-in journal."""
    return Journal(context.data_dir)


@define(eq=False)
class Journal:
    """Implements `distinv.storage.api.Storage` in `data_dir`, which is locked from `recover` on.

    `segment_bytes`, rounded up to whole sectors, is what is filled with zeros ahead.
    """

    data_dir: Path = field(converter=Path)
    segment_bytes: int = field(
        default=Limits().journal_segment_bytes,
        converter=_whole_sectors,
        kw_only=True,
    )
    files: Files = field(factory=Files, kw_only=True)

    _mutex: threading.Lock = field(init=False, factory=threading.Lock)
    """Guards what `read` looks at: `_state` and `_refusal`."""
    _state: JournalState = field(init=False, factory=JournalState)
    _refusal: str = field(init=False, default="the journal was not recovered yet")
    """Why every call is refused; empty while it works."""
    _lock: int | None = field(init=False, default=None)
    _helpers: ThreadPoolExecutor | None = field(init=False, default=None)
    """Two threads beside the commits: zero-filling a segment takes as long as a hundred of them,
    and unlinking those before a base, in one run, is not to wait for that, nor the other way."""
    _segment: Segment | None = field(init=False, default=None)
    _is_opened: bool = field(init=False, default=False)
    """Whether the segment has a complete write, so an opening."""
    _spare: Future[Segment] | None = field(init=False, default=None)
    """The next segment, perhaps still in the making."""
    _oldest: int = field(init=False, default=0)
    """The first segment that is not unlinked, nor about to be."""
    _dropping: Future[None] | None = field(init=False, default=None)
    """One run at a time, so that segments go in their order."""
    _number: int = field(init=False, default=0)
    """The highest write number ever given, to a torn write too."""
    _last_number: int = field(init=False, default=0)
    _last_hash: bytes = field(init=False, default=NO_HASH)
    """Of the last complete write."""

    @property
    def directory(self) -> Path:
        """Where the segments are."""
        return self.data_dir / "journal"

    # --- start and end ------------------------------------------------------------------------

    def recover(self) -> Recovered:
        """See Storage. Also raises StorageError when another server uses the directory."""
        if self._lock is not None:
            raise StorageError("the journal is recovered once")
        try:
            return self._recover()
        except OSError as error:
            self.close()
            raise disk_failure(self.data_dir, error) from error
        except BaseException:
            self.close()
            raise

    def _recover(self) -> Recovered:
        self.files.make_directory(self.data_dir)
        self._lock = lock_directory(self.data_dir)
        self.files.make_directory(self.directory)
        remove_unfinished(self.files, self.directory)
        found = scan(self.files, self.directory)
        state = found.state
        self._go_on(found)
        return Recovered(
            node=None if state.node is None else NodeId(state.node),
            cluster_name=state.cluster_name,
            promised=state.promised,
            entries=StoredEntries(
                self.files,
                self.directory,
                state.origin.index + 1,
                state.places.copy(),
                self.segment_bytes,
            ),
            birth=state.birth,
            torn=found.torn is not None,
            base=state.base,
        )

    def _go_on(self, found: Scan) -> None:
        """Get ready to write behind all that is there."""
        self._helpers = ThreadPoolExecutor(2, "distinv-journal-helper")
        if found.segment:
            self._segment = open_segment(self.files, self.directory, found.segment, found.sector)
        else:
            self._segment = prepare_segment(self.files, self.directory, 1, self.segment_bytes)
        if found.unused > self._segment.number:
            self._spare = self._helpers.submit(
                open_segment, self.files, self.directory, found.unused, 1
            )
        self._oldest = found.oldest or self._segment.number
        self._is_opened = found.is_opened
        self._number = found.highest_number
        self._last_number, self._last_hash = found.last_number, found.last_hash
        with self._mutex:
            self._state, self._refusal = found.state, ""

    def close(self) -> None:
        """Release files and lock; wait for the helpers. Every later call is refused."""
        with self._mutex:
            self._refusal = self._refusal or "the journal is closed"
        if self._helpers is not None:
            self._helpers.shutdown()
        if self._spare is not None and self._spare.exception() is None:
            self.files.close(self._spare.result().descriptor)
        if self._segment is not None:
            self.files.close(self._segment.descriptor)
        if self._lock is not None:
            os.close(self._lock)
        self._helpers = self._spare = self._dropping = self._segment = self._lock = None

    # --- reading ------------------------------------------------------------------------------

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """See Storage."""
        with self._mutex:
            self._check_usable()
            before = self._check_there(first, last)
            places = self._state.places
            stop = places.within(first - before - 1, last - before, max_bytes)
            places = places.part(first - before - 1, stop)
        try:
            return read_entries(self.files, self.directory, first, places)
        except StorageError:
            with self._mutex:
                self._check_there(first, last)  # forgotten meanwhile, and its file is gone
            raise

    def _check_there(self, first: int, last: int) -> int:
        """The index before the log, which has these entries. Raises StorageError."""
        before, end = self._state.origin.index, self._state.last.index
        if not before < first <= last <= end:
            raise StorageError(f"entries {first}..{last} are not in the log {before + 1}..{end}")
        return before

    def _position_at(self, index: int) -> Position:
        return self.read(index, index, 0)[0].position

    # --- writing ------------------------------------------------------------------------------

    def commit(self, records: Sequence[Record]) -> None:
        """See Storage."""
        with self._failing_for_good():
            if records:
                self._commit(records)

    def _commit(self, records: Sequence[Record]) -> None:
        self._end_dropping()
        ends = self._state.plan(records, self._position_at)
        pieces = self._encode(records)
        segment, opening = self._room_for(sum(map(len, pieces)))
        number = self._number + 1
        body = opening + b"".join(pieces)
        content, digest = encode_write(number, self._last_number, self._last_hash, body)
        self.files.write(segment.descriptor, content, segment.sector * SECTOR_BYTES)
        self.files.sync_data(segment.descriptor)
        offset = len(opening)
        with self._mutex:
            if opening:
                self._state.begin(segment.number)
            for record, end, piece in zip(records, ends, pieces, strict=True):
                place = record_place(segment.sector, offset)
                self._state.apply(record, end, segment.number, place, len(piece))
                offset += len(piece)
        segment.sector += len(content) // SECTOR_BYTES
        self._is_opened = True
        self._number = self._last_number = number
        self._last_hash = digest
        self._prepare_ahead(segment)
        self._drop_behind()

    def _encode(self, records: Sequence[Record]) -> list[bytes]:
        promised = self._state.promised
        pieces = []
        for record in records:
            if isinstance(record, PromiseRecord):
                promised = record.ballot
            pieces.append(encode_record(record, promised))
        return pieces

    def _room_for(self, records_bytes: int) -> tuple[Segment, bytes]:
        """A segment with room for so many bytes of records, and the opening to put before them."""
        segment = self._segment
        assert segment is not None, "usable means there is one"
        if self._is_opened and sectors_of(records_bytes) <= segment.sectors_left:
            return segment, b""
        opening = encode_record(self._state.opening(self._last_hash), self._state.promised)
        sectors = sectors_of(len(opening) + records_bytes)
        if self._is_opened or sectors > segment.sectors_left:
            segment = self._next_segment(segment, sectors)
        return segment, opening

    def _next_segment(self, current: Segment, sectors: int) -> Segment:
        """Leave `current`, which is durable, for one with room for `sectors`."""
        size_bytes = max(self.segment_bytes, (1 + sectors) * SECTOR_BYTES)
        if size_bytes > SEGMENT_BYTES_MAX:
            raise StorageError(f"a commit of {size_bytes} bytes is too large for the journal")
        segment = self._take_spare(sectors)
        if segment is None:
            number = current.number + 1
            segment = prepare_segment(self.files, self.directory, number, size_bytes)
        self._segment, self._is_opened = segment, False
        self.files.close(current.descriptor)
        return segment

    def _take_spare(self, sectors: int) -> Segment | None:
        """The prepared segment, if there is one with enough room."""
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        try:
            segment = spare.result()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            return None  # by now there may be room again; if not, it is said before any write
        if sectors <= segment.sectors_left:
            return segment
        self.files.close(segment.descriptor)
        return None

    def _prepare_ahead(self, segment: Segment) -> None:
        if self._spare is None and segment.is_half_used and self._helpers is not None:
            self._spare = self._helpers.submit(
                prepare_segment, self.files, self.directory, segment.number + 1, self.segment_bytes
            )

    def _drop_behind(self) -> None:
        """Have those segments unlinked that the base has made superfluous."""
        if self._state.base is None or self._dropping is not None or self._helpers is None:
            return
        oldest, _ = self._state.starts[0]
        if self._oldest < oldest:
            self._dropping = self._helpers.submit(
                drop_segments, self.files, self.directory, range(self._oldest, oldest)
            )
            self._oldest = oldest

    def _end_dropping(self) -> None:
        """Raises OSError when segments could not be unlinked: then the next commit is the last."""
        if self._dropping is not None and self._dropping.done():
            self._dropping.result()
            self._dropping = None

    # --- refusing -----------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._refusal:
            raise StorageError(self._refusal)

    @contextmanager
    def _failing_for_good(self) -> Iterator[None]:
        """Whatever goes wrong in here is a StorageError, and so is every call after it."""
        self._check_usable()
        try:
            yield
        except StorageError as error:
            self._refuse(str(error))
            raise
        except OSError as error:
            failure = disk_failure(self.directory, error)
            self._refuse(str(failure))
            raise failure from error
        except BaseException as error:
            self._refuse(f"{self.directory}: a commit was cut off by {error!r}")
            if isinstance(error, Exception):
                raise StorageError(self._refusal) from error
            raise

    def _refuse(self, why: str) -> None:
        with self._mutex:
            self._refusal = why
