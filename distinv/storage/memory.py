"""A storage in memory whose durability is a step of its own, so that a simulator can crash it.

The same contract as the journal's, and nothing shared with its code: each is the other's oracle
in the tests. All records are immutable values, so nothing is copied and nothing can be changed
behind the storage's back. Not thread-safe; deterministic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from attrs import Factory, define, evolve, field
from msgspec.structs import replace

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, NodeId, Position, follows
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
    BaseRecord,
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    Recovered,
    TruncateRecord,
)

_NO_BIRTH = BirthRecord(None, ())


@define
class _Image:
    """The state after some commits."""

    base: BaseRecord | None = None
    identity: IdentityRecord | None = None
    promised: Ballot = NO_BALLOT
    birth: BirthRecord = _NO_BIRTH
    entries: list[Entry] = Factory(list)
    """Those after the base."""

    def apply(self, record: Record) -> None:
        if isinstance(record, EntryRecord):
            self.entries.append(record.entry)
        elif isinstance(record, TruncateRecord):
            del self.entries[record.index - self.before.index :]
        elif isinstance(record, BaseRecord):
            self.entries = self.entries_after(record.position)
            self.base = record
        elif isinstance(record, PromiseRecord):
            self.promised = record.ballot
        elif isinstance(record, BirthRecord):
            self.birth = record
        else:
            self.identity = record

    def check(self, record: Record) -> None:
        """Raise StorageError for a record that does not fit."""
        if isinstance(record, EntryRecord):
            fits = follows(self.last, (record.entry,))
        elif isinstance(record, TruncateRecord):
            fits = self.before.index <= record.index <= self.last.index
        elif isinstance(record, BaseRecord):
            fits = record == self.base or record.position.index > self.before.index
        elif isinstance(record, IdentityRecord):
            fits = self.identity is None
        else:
            fits = True
        if not fits:
            raise StorageError(f"the records cannot be kept: {record!r} does not fit")

    @property
    def before(self) -> Position:
        return ORIGIN if self.base is None else self.base.position

    @property
    def last(self) -> Position:
        return self.entries[-1].position if self.entries else self.before

    def part(self, first: int, last: int) -> list[Entry]:
        """Entries `first..last`, which are there."""
        return self.entries[first - self.before.index - 1 : last - self.before.index]

    def position(self, index: int) -> Position | None:
        """None where the log has no entry, nor its base."""
        if index == self.before.index:
            return self.before
        is_there = self.before.index < index <= self.last.index
        return self.part(index, index)[0].position if is_there else None

    def entries_after(self, position: Position) -> list[Entry]:
        """None at all when that is not on this log."""
        if self.position(position.index) != position:
            return []
        return self.part(position.index + 1, self.last.index)

    def copy(self) -> _Image:
        return evolve(self, entries=list(self.entries))


@define(eq=False)
class MemoryStorage:
    """Implements `distinv.storage.api.Storage`.

    A commit is `stage`, then `make_durable`; `crash` loses what is only staged. After `crash`,
    `fail` or `close` calls are refused; `recover` opens the storage again after a crash or close.
    """

    in_memory: ClassVar[bool] = True

    _durable: _Image = field(init=False, factory=_Image)
    _written: _Image = field(init=False, factory=_Image)
    """What is durable when everything staged is: staged records are checked against it."""
    _staged: deque[tuple[int, tuple[Record, ...]]] = field(init=False, factory=deque)
    _ticket: int = field(init=False, default=0)
    _torn: bool = field(init=False, default=False)
    _refusal: str = field(init=False, default="the storage was not recovered yet")

    def recover(self) -> Recovered:
        """See Storage."""
        if not self._refusal:
            raise StorageError("the storage is recovered once")
        if not follows(self._durable.before, self._durable.entries):
            raise CorruptLog("a stored entry does not match its hash")
        self._refusal = ""
        identity = self._durable.identity
        return Recovered(
            node=None if identity is None else NodeId(identity.node),
            cluster_name=None if identity is None else identity.cluster_name,
            promised=self._durable.promised,
            entries=tuple(self._durable.entries),
            birth=self._durable.birth,
            torn=self._torn,
            base=self._durable.base,
        )

    def stage(self, records: Sequence[Record]) -> int:
        """Begin a commit; it is durable after `make_durable` of the ticket returned."""
        self._check_usable()
        records = tuple(records)
        for record in records:
            self._try(record)
        self._ticket += 1
        self._staged.append((self._ticket, records))
        return self._ticket

    def make_durable(self, ticket: int) -> None:
        """End every commit staged up to `ticket`, in order."""
        self._check_usable()
        while self._staged and self._staged[0][0] <= ticket:
            self._end_first()

    def commit(self, records: Sequence[Record]) -> None:
        """See Storage."""
        self.make_durable(self.stage(records))

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """See Storage. Only what is durable is there."""
        self._check_usable()
        before, end = self.base_index, self.last_index
        if not before < first <= last <= end:
            raise StorageError(f"entries {first}..{last} are not in the log {before + 1}..{end}")
        found: list[Entry] = []
        rest = max_bytes
        for entry in self._durable.part(first, last):
            rest -= len(entry.payload)
            if found and rest < 0:
                break
            found.append(entry)
        previous = self._durable.position(first - 1)
        if previous is None or not follows(previous, found):
            raise CorruptLog(f"an entry of {first}..{last} does not match its hash")
        return found

    def close(self) -> None:
        """A clean end: what is only staged is lost, as in a crash."""
        self.crash()
        self._refusal = "the storage is closed"

    # --- faults -------------------------------------------------------------------------------

    def crash(self, kept: int = 0, *, torn: bool = False) -> None:
        """Lose what is staged, but for the first `kept` commits; each is kept whole or lost.

        `torn` makes `recover` report that the first lost one had reached the disk in part.
        """
        for _ in range(min(kept, len(self._staged))):
            self._end_first()
        self._torn = self._torn or (torn and any(records for _, records in self._staged))
        self._staged.clear()
        self._written = self._durable.copy()
        self._refusal = "the storage has crashed"

    @property
    def base_index(self) -> int:
        """After which the durable log begins; 0 while it has its first entry."""
        return self._durable.before.index

    @property
    def last_index(self) -> int:
        """Where the durable log ends."""
        return self._durable.last.index

    def flip(self, index: int) -> None:
        """Flip the first bit of the durable entry's payload, or of its time when it has none.

        Raises IndexError when there is no entry at `index`.
        """
        at = index - self.base_index - 1
        if at < 0:
            raise IndexError(f"entry {index} is not above the base {self.base_index}")
        entry = self._durable.entries[at]
        if entry.payload:
            rotten = replace(entry, payload=bytes((entry.payload[0] ^ 0x80,)) + entry.payload[1:])
        else:
            rotten = replace(entry, time_us=entry.time_us ^ 1)
        self._durable.entries[at] = rotten

    def fail(self, why: str = "the disk failed") -> None:
        """From now on every call is refused, as after a failed sync; `crash` before `recover`."""
        self._refusal = why

    # --- inside -------------------------------------------------------------------------------

    def _try(self, record: Record) -> None:
        try:
            self._written.check(record)
        except StorageError as error:
            self._refusal = str(error)
            raise
        self._written.apply(record)

    def _end_first(self) -> None:
        _, records = self._staged.popleft()
        for record in records:
            self._durable.apply(record)
            self._torn = False  # as in the journal: told until something follows it

    def _check_usable(self) -> None:
        if self._refusal:
            raise StorageError(self._refusal)
