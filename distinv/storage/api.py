"""The extension point "storage": where a server's promises and its log survive a crash.

Who calls: the runtime's executor. `recover` once at start, from the storage thread; `commit`
from the storage thread, one call at a time; `read` from any thread, also while a commit runs.
What may not happen: returning from `commit` before every record is durable; applying half of a
commit after a crash; hiding a damaged record; giving up an entry before the base at or above it
is durable. A failed `commit` is never tried again: the storage refuses every later call and the
server stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec
from attrs import frozen

from distinv.entry import Ballot, Entry, NodeId, Position, VoterSet


class IdentityRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The first record of every data directory."""

    node: int
    cluster_name: str


class PromiseRecord(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The highest ballot promised; the last one counts."""

    ballot: Ballot


class EntryRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The log's next entry."""

    entry: Entry


class TruncateRecord(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Every entry after `index` is gone. Never below the base."""

    index: int


class BirthRecord(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The whole birth state after a step: the one proposal accepted, and those refused for ever."""

    accepted: VoterSet | None
    refused: tuple[int, ...]
    """Cluster ids of the proposals refused."""


class BaseRecord(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The log begins after `position`, and the rest is what it would be asked for up to there.

    When the log holds that very position, the entries up to it are forgotten and those after it
    stay: compaction. When it does not, because it ends below or went another way, every entry is
    forgotten and the next one follows `position`: a snapshot was installed. A base lies above the
    one before it; the same one again, equal in every field, changes nothing; any other does not
    fit.
    """

    position: Position
    time_us: int
    """Of the entry there."""
    voters_index: int
    """Where the committed voter set in force there stands in the log; at most `position.index`."""
    voters_ballot: Ballot
    voters: VoterSet


Record: TypeAlias = (
    IdentityRecord | PromiseRecord | EntryRecord | TruncateRecord | BirthRecord | BaseRecord
)


@frozen
class Recovered:
    """What a data directory held."""

    node: NodeId | None
    """None when the directory was blank."""
    cluster_name: str | None
    promised: Ballot
    entries: Sequence[Entry]
    """From behind the base on (index 1 when there is none), without gaps; the hash chain is
    verified. What a later `BaseRecord` forgets may be gone from here, too: a look at it raises
    StorageError."""
    birth: BirthRecord
    torn: bool
    """The last commit had not been written whole; it was dropped."""
    base: BaseRecord | None = None
    """The last one committed; None while the log has its first entry."""


class Storage(Protocol):
    """One data directory, locked while it is open.

    One whose calls wait for nothing may have an attribute `in_memory = True`: then it is called on
    the event loop instead of from a thread, and the server keeps its store in memory, too. If it
    outlives its closing it has a method `set_aside()`, called behind `close` when the server's
    cluster has dissolved: then the factory gives a blank one.
    """

    def recover(self) -> Recovered:
        """Read and verify everything. Raises CorruptLog, StorageError."""
        ...

    def commit(self, records: Sequence[Record]) -> None:
        """Make all records durable together, in order, or none. Raises StorageError, for good."""
        ...

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries `first..last`, from the front, until about `max_bytes` (at least one).

        Raises StorageError when they are not there, as those at or below the base are not, or do
        not match their checksum. Entries forgotten meanwhile are there no more.
        """
        ...

    def close(self) -> None: ...


@frozen
class StorageContext:
    """What a storage factory receives."""

    data_dir: Path


class StorageFactory(Protocol):
    def __call__(self, context: StorageContext) -> Storage: ...
