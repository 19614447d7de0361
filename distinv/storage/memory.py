"""A storage in memory whose durability is a step of its own, so that a simulator can crash it.

The same contract as the journal's, and nothing shared with its code: each is the other's oracle
in the tests. All records are immutable values, so nothing is copied and nothing can be changed
behind the storage's back. Not thread-safe; deterministic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import Factory, define, evolve, field
from msgspec.structs import replace

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, NodeId, Position, follows
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import (
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

    identity: IdentityRecord | None = None
    promised: Ballot = NO_BALLOT
    birth: BirthRecord = _NO_BIRTH
    entries: list[Entry] = Factory(list)

    def apply(self, record: Record) -> None:
        if isinstance(record, EntryRecord):
            self.entries.append(record.entry)
        elif isinstance(record, TruncateRecord):
            del self.entries[record.index :]
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
            fits = 0 <= record.index <= len(self.entries)
        elif isinstance(record, IdentityRecord):
            fits = self.identity is None
        else:
            fits = True
        if not fits:
            raise StorageError(f"the records cannot be kept: {record!r} does not fit")

    @property
    def last(self) -> Position:
        return self.entries[-1].position if self.entries else ORIGIN

    def copy(self) -> _Image:
        return evolve(self, entries=list(self.entries))


@define(eq=False)
class MemoryStorage:
    """Implements `distinv.storage.api.Storage`.

    A commit is `stage`, then `make_durable`; `crash` loses what is only staged. After `crash`,
    `fail` or `close` calls are refused; `recover` opens the storage again after a crash or close.
    """

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
        if not follows(ORIGIN, self._durable.entries):
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
        entries = self._durable.entries
        if not 0 < first <= last <= len(entries):
            raise StorageError(f"entries {first}..{last} are not in the log 1..{len(entries)}")
        found: list[Entry] = []
        rest = max_bytes
        for entry in entries[first - 1 : last]:
            rest -= len(entry.payload)
            if found and rest < 0:
                break
            found.append(entry)
        before = entries[first - 2].position if first > 1 else ORIGIN
        if not follows(before, found):
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
    def last_index(self) -> int:
        """Where the durable log ends."""
        return len(self._durable.entries)

    def flip(self, index: int) -> None:
        """Flip the first bit of the durable entry's payload, or of its time when it has none."""
        entry = self._durable.entries[index - 1]
        if entry.payload:
            rotten = replace(entry, payload=bytes((entry.payload[0] ^ 0x80,)) + entry.payload[1:])
        else:
            rotten = replace(entry, time_us=entry.time_us ^ 1)
        self._durable.entries[index - 1] = rotten

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
