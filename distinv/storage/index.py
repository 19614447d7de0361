"""What a journal amounts to: where each entry lies on disk, and all that is not in the log.

Twelve bytes of memory per entry. Not thread-safe: the journal guards it.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence

from attrs import define, field

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, Position, follows
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    TruncateRecord,
)
from distinv.storage.format import OpeningRecord

NO_BIRTH = BirthRecord(None, ())

_SEGMENT_SHIFT = 32


class MisfitError(ValueError):
    """A record that does not continue what is there."""


@define
class Places:
    """Where the records of consecutive entries lie: segment, byte in its file, size in bytes."""

    _places: array[int] = field(factory=lambda: array("Q"))
    _sizes: array[int] = field(factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self._places)

    def add(self, segment: int, place: int, size_bytes: int) -> None:
        self._places.append(segment << _SEGMENT_SHIFT | place)
        self._sizes.append(size_bytes)

    def cut(self, length: int) -> None:
        del self._places[length:]
        del self._sizes[length:]

    def drop(self, count: int) -> None:
        """Forget the first `count`; takes as long as copying the rest."""
        del self._places[:count]
        del self._sizes[:count]

    def part(self, start: int, stop: int) -> Places:
        """A copy of those from `start` to before `stop`."""
        return Places(self._places[start:stop], self._sizes[start:stop])

    def copy(self) -> Places:
        return self.part(0, len(self))

    def within(self, start: int, stop: int, max_bytes: int) -> int:
        """Up to where `start..stop` takes at most `max_bytes`, though at least one."""
        end, rest = start, max_bytes
        while end < stop and (end == start or self._sizes[end] <= rest):
            rest -= self._sizes[end]
            end += 1
        return end

    def segment(self, at: int) -> int:
        return self._places[at] >> _SEGMENT_SHIFT

    def place(self, at: int) -> int:
        return self._places[at] & (1 << _SEGMENT_SHIFT) - 1

    def size_bytes(self, at: int) -> int:
        return self._sizes[at]


@define
class _Plan:
    """What the log will be after some records of a commit that is not durable yet."""

    position_at: Callable[[int], Position]
    base: BaseRecord | None
    origin: Position
    last: Position
    node: int | None
    kept: int
    """Up to here the entries are those on disk; the ones after are `added`."""
    added: list[Position] = field(factory=list)

    def take(self, record: Record) -> None:
        """Raises MisfitError."""
        if isinstance(record, EntryRecord):
            self.last = _position_behind(self.last, record.entry)
            self.added.append(self.last)
        elif isinstance(record, TruncateRecord):
            self.truncate(record.index)
        elif isinstance(record, BaseRecord):
            self.rebase(record)
        elif isinstance(record, IdentityRecord):
            if self.node is not None:
                raise MisfitError("the directory already has an identity")
            self.node = record.node

    def truncate(self, index: int) -> None:
        if not self.origin.index <= index <= self.last.index:
            raise MisfitError(f"no entry {index} to truncate to")
        self.last = self.position(index)
        del self.added[max(0, index - self.kept) :]
        self.kept = min(self.kept, index)

    def rebase(self, record: BaseRecord) -> None:
        position, present = record.position, position_of(self.base)
        if record == self.base:
            return
        if position.index <= present.index:
            raise MisfitError(f"the base {position.index} is not above the one at {present.index}")
        self.base = record
        if position.index < self.origin.index:
            return  # in a scan, that begins behind it: it was compaction, or this goes astray
        if position.index <= self.last.index and self.position(position.index) == position:
            del self.added[: max(0, position.index - self.kept)]
            self.kept = max(self.kept, position.index)
        else:
            self.last = position
            self.kept = position.index
            self.added.clear()
        self.origin = position

    def position(self, index: int) -> Position:
        if index == self.last.index:
            return self.last
        if index == self.origin.index:
            return self.origin
        return self.added[index - self.kept - 1] if index > self.kept else self.position_at(index)


def _position_behind(last: Position, entry: Entry) -> Position:
    try:
        if follows(last, (entry,)):
            return entry.position
    except struct.error as error:  # from a damaged disk, or a bug above
        raise MisfitError(f"entry {entry.index} has a number that has no place in it") from error
    raise MisfitError(f"entry {entry.index} does not follow {last.index}")


@define
class JournalState:
    """The state after some write. The log has the entries after the base, up to `last`."""

    base: BaseRecord | None = None
    origin: Position = ORIGIN
    """The known entries follow this: the base's position, but for a scan under way (`opened`)."""
    last: Position = ORIGIN
    promised: Ballot = NO_BALLOT
    node: int | None = None
    cluster_name: str | None = None
    birth: BirthRecord = NO_BIRTH
    places: Places = field(factory=Places)
    """That of entry `origin.index + 1` first."""
    starts: list[tuple[int, int]] = field(factory=list)
    """Segments that the journal could begin with, each with the index before its entries.

    Both ascend. One is missing here when the log was shorter, since, than when it began: it does
    not tell by itself what the log was then. The first one is needed, what lies before it is not.
    """

    @classmethod
    def opened(cls, opening: OpeningRecord, promised: Ballot) -> JournalState:
        """The state at the beginning of the oldest segment.

        Between the base that it knows and its own entries some may be missing: then a later base
        has forgotten them, or they are lost. A scan knows which at its end (`is_anchored`).
        """
        return cls(
            base=opening.base,
            origin=opening.before,
            last=opening.before,
            promised=promised,
            node=opening.node,
            cluster_name=opening.cluster_name,
            birth=opening.birth,
        )

    @property
    def is_anchored(self) -> bool:
        """Whether every entry after the base is known."""
        return self.origin == position_of(self.base)

    def opening(self, previous_hash: bytes) -> OpeningRecord:
        """What a segment says that begins here."""
        return OpeningRecord(
            previous_hash, self.last, self.node, self.cluster_name, self.birth, self.base
        )

    def begin(self, segment: int) -> None:
        """The next records are in that segment, behind its opening."""
        self.starts.append((segment, self.last.index))
        self._forget_starts()

    def plan(
        self, records: Sequence[Record], position_at: Callable[[int], Position]
    ) -> list[Position]:
        """Where the log ends after each of `records`. Raises MisfitError, changes nothing.

        `position_at` tells the position of an entry that is already in the log.
        """
        plan = _Plan(position_at, self.base, self.origin, self.last, self.node, self.last.index)
        ends: list[Position] = []
        for record in records:
            plan.take(record)
            ends.append(plan.last)
        return ends

    def apply(self, record: Record, end: Position, segment: int, place: int, size: int) -> None:
        """Take in a record of a durable write; `end` is where the log ends after it."""
        self.last = end
        if isinstance(record, EntryRecord):
            self.places.add(segment, place, size)
        elif isinstance(record, TruncateRecord):
            self.places.cut(record.index - self.origin.index)
            self._forget_starts()
        elif isinstance(record, PromiseRecord):
            self.promised = record.ballot
        elif isinstance(record, BirthRecord):
            self.birth = record
        elif isinstance(record, BaseRecord):
            self._rebase(record)
        else:
            self.node, self.cluster_name = record.node, record.cluster_name

    def _rebase(self, record: BaseRecord) -> None:
        self.base = record
        forgotten = record.position.index - self.origin.index
        if self.last == record.position:
            self.places = Places()
        elif forgotten > 0:
            self.places.drop(forgotten)
        if forgotten >= 0:
            self.origin = record.position
        self._forget_starts()

    def _forget_starts(self) -> None:
        """Forget those that are none any more, and those that the base makes superfluous."""
        starts, end, base = self.starts, self.last.index, position_of(self.base).index
        while starts[-1][1] > end:
            starts.pop()
        while base and len(starts) > 1 and starts[1][1] <= base:
            del starts[0]


def position_of(base: BaseRecord | None) -> Position:
    """The place before the first entry of a log with that base."""
    return ORIGIN if base is None else base.position
