"""The log as one server holds it: positions of all entries, bodies of the recent ones.

What is durable is not decided here (see `durability.py`), nor what is committed (`node.py`).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

from distinv.config import Limits
from distinv.core.events import InvariantBroken
from distinv.entry import (
    KIND_SINCE,
    NO_BALLOT,
    ORIGIN,
    Ballot,
    Entry,
    EntryKind,
    Position,
    VoterSet,
    decode_voters,
)
from distinv.errors import UpgradeNeeded
from distinv.storage.api import BaseRecord


class Log:
    """Entries `base.index + 1 .. last.index`; the chain of hashes begins at `base`."""

    def __init__(
        self, entries: Iterable[Entry], *, cache_bytes: int, base: BaseRecord | None = None
    ) -> None:
        self._cache_bytes = cache_bytes
        self.held_commands = False
        """A client command was in this log at some time, be it only for a moment."""
        self._begin(base)
        for entry in entries:
            self.append(entry)

    def _begin(self, base: BaseRecord | None) -> None:
        """Hold nothing behind `base`."""
        self._base_record = base
        self.base = ORIGIN if base is None else base.position
        self._positions: list[Position] = []
        self._times_us = array("Q")
        self._bytes = array("Q")
        """Of all payloads up to each entry, since this object was made."""
        self._bodies: dict[int, Entry] = {}
        self._body_bytes = 0
        self._oldest_body = self.base.index + 1
        self.last = self.base
        self.last_index = self.base.index
        self.dissolved: Entry | None = None
        """What says that this cluster gives way to another, committed or not."""
        self.voter_indexes: tuple[int, ...] = () if base is None else (base.voters_index,)
        """Where the voter sets stand, ascending, the one in force at the base among them; another
        tuple whenever one comes or goes."""

    @property
    def last_time_us(self) -> int:
        """The time of the last entry; never less than any before it."""
        if self._times_us:
            return self._times_us[-1]
        return self._base_record.time_us if self._base_record is not None else 0

    def voters_at(self, index: int) -> VoterSet:
        """The set of the voter entry at `index`, which is one of `voter_indexes`."""
        base = self._base_record
        if base is not None and index == base.voters_index:
            return base.voters
        entry = self._bodies.get(index)
        assert entry is not None, "bodies of voter entries are never evicted"
        return decode_voters(entry.payload)

    def base_at(self, index: int) -> BaseRecord:
        """What is to be kept of the log up to `index`, an entry it holds, when that is forgotten.

        `index` is committed, so the last voter set up to there is the one in force.
        """
        position = self.position(index)
        assert position is not None
        assert index > self.base.index
        voters_index = max(at for at in self.voter_indexes if at <= index)
        return BaseRecord(
            position,
            self._times_us[index - self.base.index - 1],
            voters_index,
            self.ballot_at(voters_index),
            self.voters_at(voters_index),
        )

    def dispensable_now(self, limits: Limits) -> bool:
        """A quarter of what is kept could go, in entries or in bytes: then it is worth the work."""
        index = self.dispensable(limits.log_keep_entries, limits.log_keep_bytes)
        count = index - self.base.index
        if count > limits.log_keep_entries // 4:
            return True
        # The first entry's own bytes are not known any more: but for that one.
        return count > 0 and self._bytes[count - 1] - self._bytes[0] >= limits.log_keep_bytes // 4

    def dispensable(self, entries: int, max_bytes: int) -> int:
        """Up to where entries may go when so many of the last ones, or so many bytes, are kept."""
        by_count = self.last_index - entries
        if not self._bytes:
            return self.base.index
        by_size = self.base.index + bisect_right(self._bytes, self._bytes[-1] - max_bytes)
        return max(self.base.index, by_count, by_size if self._bytes[-1] > max_bytes else 0)

    def compact(self, base: BaseRecord) -> None:
        """Forget the entries up to `base`, which this log holds; none of them is needed again."""
        index = base.position.index
        if not self.holds(base.position) or index <= self.base.index:
            raise InvariantBroken(f"cannot compact to {index}, log is {self.base}..{self.last}")
        count = index - self.base.index
        kept = [at for at in self.voter_indexes if at <= index]  # those are never evicted
        for gone in (*kept, *range(self._oldest_body, index + 1)):
            entry = self._bodies.pop(gone, None)
            if entry is not None:
                self._body_bytes -= len(entry.payload)
        self._oldest_body = max(self._oldest_body, index + 1)
        del self._positions[:count]
        del self._times_us[:count]
        del self._bytes[:count]
        self._base_record, self.base = base, base.position
        later = [at for at in self.voter_indexes if at > index]
        self.voter_indexes = (base.voters_index, *later)

    def install(self, base: BaseRecord) -> None:
        """Begin anew behind `base`: a snapshot holds everything up to there."""
        self._begin(base)

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
        """Add the next entry; the caller has verified the chain.

        Raises UpgradeNeeded for one that this release cannot read. Whoever calls stops with it:
        nothing of what was taken in since the last turn is acknowledged, or written.
        """
        if entry.index != self.last_index + 1 or entry.ballot < self.last.ballot:
            raise InvariantBroken(f"entry {entry.index} does not follow {self.last}")
        if entry.kind not in KIND_SINCE:
            raise UpgradeNeeded(
                f"entry {entry.index} is of a kind that this release does not know: the cluster "
                "runs a later one; upgrade this server"
            )
        self.last = entry.position
        self.last_index = entry.index
        self._times_us.append(entry.time_us)
        self._bytes.append(len(entry.payload) + (self._bytes[-1] if self._bytes else 0))
        self._positions.append(self.last)
        self._bodies[entry.index] = entry
        self._body_bytes += len(entry.payload)
        if entry.kind == EntryKind.COMMANDS:
            self.held_commands = True
        elif entry.kind == EntryKind.VOTERS:
            self.voter_indexes = (*self.voter_indexes, entry.index)
        elif entry.kind == EntryKind.DISSOLVED and self.dissolved is None:
            self.dissolved = entry

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
        del self._bytes[index - self.base.index :]
        self.voter_indexes = tuple([at for at in self.voter_indexes if at <= index])
        if self.dissolved is not None and self.dissolved.index > index:
            self.dissolved = None
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
        base = self._base_record
        if base is not None and index == base.voters_index:
            return base.voters_ballot
        position = self.position(index)
        return position.ballot if position is not None else NO_BALLOT


def more_up_to_date(one: Position, other: Position) -> bool:
    """Invariant 3: by the last entry's ballot, then by length."""
    return (one.ballot, one.index) > (other.ballot, other.index)
