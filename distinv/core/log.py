"""The log as one server holds it: positions of all entries, bodies of the recent ones.

What is durable is not decided here (see `durability.py`), nor what is committed (`node.py`).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from distinv.core.events import InvariantBroken
from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, EntryKind, Position


class Log:
    """Entries `base.index + 1 .. last.index`; the chain of hashes begins at `base`."""

    def __init__(self, entries: Iterable[Entry], *, cache_bytes: int, base: Position = ORIGIN):
        self.base = base
        self._positions: list[Position] = []
        self._bodies: dict[int, Entry] = {}
        self._oldest_body = base.index + 1
        self._body_bytes = 0
        self._cache_bytes = cache_bytes
        self.last = base
        self.last_index = base.index
        self._times_us = array("Q")
        self.voter_indexes: tuple[int, ...] = ()
        """Where the voter sets stand, ascending; another tuple whenever one comes or goes."""
        for entry in entries:
            self.append(entry)

    @property
    def last_time_us(self) -> int:
        """The time of the last entry; never less than any before it."""
        return self._times_us[-1] if self._times_us else 0

    def position(self, index: int) -> Position | None:
        """The position at `index`, or None when the log does not hold it."""
        if index == self.base.index:
            return self.base
        offset = index - self.base.index - 1
        return self._positions[offset] if 0 <= offset < len(self._positions) else None

    def holds(self, position: Position) -> bool:
        """Whether this log has that very entry, and so everything before it."""
        return self.position(position.index) == position

    def body(self, index: int) -> Entry | None:
        """The whole entry, or None when it must be read from storage."""
        return self._bodies.get(index)

    def bodies(self, first: int, last: int, max_bytes: int) -> list[Entry] | None:
        """Entries `first..last` up to about `max_bytes` (one at least); None: ask storage."""
        found: list[Entry] = []
        size = 0
        for index in range(first, last + 1):
            entry = self._bodies.get(index)
            if entry is None:
                return found or None
            found.append(entry)
            size += len(entry.payload)
            if size >= max_bytes:
                break
        return found

    def append(self, entry: Entry) -> None:
        """Add the next entry; the caller has verified the chain."""
        if entry.index != self.last_index + 1 or entry.ballot < self.last.ballot:
            raise InvariantBroken(f"entry {entry.index} does not follow {self.last}")
        self.last = entry.position
        self.last_index = entry.index
        self._times_us.append(entry.time_us)
        self._positions.append(self.last)
        self._bodies[entry.index] = entry
        self._body_bytes += len(entry.payload)
        if entry.kind == EntryKind.VOTERS:
            self.voter_indexes = (*self.voter_indexes, entry.index)

    def truncate(self, index: int) -> None:
        """Forget every entry after `index`; none of them has been applied."""
        kept = self.position(index)
        if kept is None:
            raise InvariantBroken(f"cannot truncate to {index}, log is {self.base}..{self.last}")
        for gone in range(index + 1, self.last.index + 1):
            # Whatever is not applied still has its body.
            self._body_bytes -= len(self._bodies.pop(gone).payload)
        del self._positions[index - self.base.index :]
        del self._times_us[index - self.base.index :]
        self.voter_indexes = tuple([at for at in self.voter_indexes if at <= index])
        self.last = kept
        self.last_index = index

    def evict_bodies(self, applied: int) -> None:
        """Drop the oldest bodies beyond the cache's size; never those still to be applied."""
        while self._body_bytes > self._cache_bytes and self._oldest_body <= applied:
            entry = self._bodies.get(self._oldest_body)
            if entry is not None and entry.kind != EntryKind.VOTERS:
                del self._bodies[self._oldest_body]
                self._body_bytes -= len(entry.payload)
            self._oldest_body += 1

    def guess_match(self, index: int, ballot: Ballot) -> int:
        """Where a log that has `ballot` at `index` may agree with this one (Raft, section 5.3).

        The last own index not above `index` whose ballot is not above `ballot`: everything
        after it certainly differs.
        """
        guess = min(index, self.last.index)
        while guess > self.base.index:
            position = self.position(guess)
            if position is None or position.ballot <= ballot:
                break
            guess -= 1
        return guess

    def ballot_at(self, index: int) -> Ballot:
        position = self.position(index)
        return position.ballot if position is not None else NO_BALLOT


def more_up_to_date(one: Position, other: Position) -> bool:
    """Invariant 3: by the last entry's ballot, then by length."""
    return (one.ballot, one.index) > (other.ballot, other.index)
