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
class JournalState:
    """The state after some write. The log has the entries after `base`, up to `last`."""

    base: Position = ORIGIN
    last: Position = ORIGIN
    promised: Ballot = NO_BALLOT
    node: int | None = None
    cluster_name: str | None = None
    birth: BirthRecord = NO_BIRTH
    places: Places = field(factory=Places)
    """That of entry `base.index + 1` first."""

    @classmethod
    def opened(cls, opening: OpeningRecord, promised: Ballot) -> JournalState:
        """The state at the beginning of the oldest segment."""
        return cls(
            base=opening.before,
            last=opening.before,
            promised=promised,
            node=opening.node,
            cluster_name=opening.cluster_name,
            birth=opening.birth,
        )

    def opening(self, previous_hash: bytes) -> OpeningRecord:
        """What a segment says that begins here."""
        return OpeningRecord(previous_hash, self.last, self.node, self.cluster_name, self.birth)

    def plan(
        self, records: Sequence[Record], position_at: Callable[[int], Position]
    ) -> list[Position]:
        """Where the log ends after each of `records`. Raises MisfitError, changes nothing.

        `position_at` tells the position of an entry that is already in the log.
        """
        ends: list[Position] = []
        last, node = self.last, self.node
        kept, added = last.index, list[Entry]()
        for record in records:
            if isinstance(record, EntryRecord):
                last = _position_behind(last, record.entry)
                added.append(record.entry)
            elif isinstance(record, TruncateRecord):
                if not self.base.index <= record.index <= last.index:
                    raise MisfitError(f"no entry {record.index} to truncate to")
                if record.index > kept:
                    del added[record.index - kept :]
                    last = added[-1].position
                elif record.index < last.index:
                    kept, added = record.index, []
                    last = self.base if kept == self.base.index else position_at(kept)
            elif isinstance(record, IdentityRecord):
                if node is not None:
                    raise MisfitError("the directory already has an identity")
                node = record.node
            ends.append(last)
        return ends

    def apply(self, record: Record, end: Position, segment: int, place: int, size: int) -> None:
        """Take in a record of a durable write; `end` is where the log ends after it."""
        if isinstance(record, EntryRecord):
            self.places.add(segment, place, size)
        elif isinstance(record, TruncateRecord):
            self.places.cut(record.index - self.base.index)
        elif isinstance(record, PromiseRecord):
            self.promised = record.ballot
        elif isinstance(record, BirthRecord):
            self.birth = record
        else:
            self.node, self.cluster_name = record.node, record.cluster_name
        self.last = end


def _position_behind(last: Position, entry: Entry) -> Position:
    try:
        if follows(last, (entry,)):
            return entry.position
    except struct.error as error:  # from a damaged disk, or a bug above
        raise MisfitError(f"entry {entry.index} has a number that has no place in it") from error
    raise MisfitError(f"entry {entry.index} does not follow {last.index}")
