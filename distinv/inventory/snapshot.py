"""Snapshots: a copy of the whole store at one position, for a server that lacks the log.

A snapshot is a SQLite file like the store's own, without a write-ahead log: catalogue, levels,
ledger, keys, sessions with their results, the position and the voters in force there. It is
made from what is committed while commands go on. What comes from another server is believed
only after all of it was read: its size and hash, the soundness of the file, its place in the
log, and the state digest made anew from its rows.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import closing
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

from distinv.entry import SnapshotHead
from distinv.errors import StorageError
from distinv.inventory.check import copy_problems
from distinv.inventory.file import FileLock, exchange, sync_directory, sync_file
from distinv.inventory.schema import MEMORY, StoreState, check_copy, open_reader, read_state

DIGEST_BYTES = 16
_STEP_PAGES = 256
"""A megabyte: some milliseconds of a processor."""
_REST_S = 0.002

_FORMAT_VERSIONS = slice(18, 20)
"""The two bytes of a SQLite file that say whether it has a write-ahead log (2) or not (1)."""


class Snapshot(Protocol):
    """A finished snapshot, to be read in pieces from any thread."""

    @property
    def head(self) -> SnapshotHead: ...
    @property
    def size_bytes(self) -> int: ...
    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer only at the end. Raises StorageError."""
        ...

    def close(self) -> None:
        """Give back what is held, when nobody reads; a file stays. Closing twice is allowed."""
        ...


class SnapshotFile:
    """A snapshot in a file, which may be removed while it is open."""

    __slots__ = ("_descriptor", "head", "path")

    def __init__(self, path: Path, head: SnapshotHead) -> None:
        """Raises StorageError."""
        self.path = path
        self.head = head
        try:
            self._descriptor: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StorageError(f"The snapshot {path} cannot be read: {error}.") from error

    @property
    def size_bytes(self) -> int:
        return self.head.size_bytes

    def read(self, offset: int, size: int) -> bytes:
        if self._descriptor is None:
            raise StorageError(f"The snapshot {self.path} is closed.")
        try:
            return os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise StorageError(f"The snapshot {self.path} cannot be read: {error}.") from error

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SnapshotBytes:
    """A snapshot in memory."""

    __slots__ = ("_data", "head")

    def __init__(self, data: bytes, head: SnapshotHead) -> None:
        self._data: bytes | None = data
        self.head = head

    @property
    def size_bytes(self) -> int:
        return self.head.size_bytes

    def read(self, offset: int, size: int) -> bytes:
        if self._data is None:
            raise StorageError("The snapshot is closed.")
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._data = None


# --- making one ---------------------------------------------------------------------------------


def write_snapshot(store: str, path: Path, *, durable: bool = True) -> SnapshotFile:
    """Copy what is committed in the store's file to `path`. Raises StorageError.

    `durable`: it is to outlive this process. To sync hundreds of megabytes takes the disk from a
    leader's journal, and who receives a copy believes only its hash.

    For a thread, inside `StoreFile.in_use`. The copy is made in steps with rests in between, for
    others want the processor and the disk as well, and all of it under one read transaction: else
    SQLite's backup interface would begin anew at every commit. Commits go on meanwhile; only the
    write-ahead log cannot begin anew, and grows.
    """
    part = path.with_name(path.name + ".part")
    try:
        try:
            part.unlink(missing_ok=True)
            _copy(store, part)
            if durable:
                sync_file(part)
            with closing(open_reader(str(part), immutable=True)) as database:
                state = read_state(database)
            head = _head(state, *_measure(part))
            os.replace(part, path)
            if durable:
                sync_directory(path.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"The snapshot {path} cannot be written: {error}.") from error
    return SnapshotFile(path, head)


def snapshot_of(data: bytes, state: StoreState) -> SnapshotBytes:
    """A store in memory, serialized, as a snapshot. Raises StorageError."""
    return SnapshotBytes(data, _head(state, len(data), _digest(data)))


def _copy(store: str, path: Path) -> None:
    with (
        closing(open_reader(store)) as source,
        closing(sqlite3.connect(path, isolation_level=None)) as target,
    ):
        target.execute("PRAGMA journal_mode = OFF")  # half a copy is thrown away
        target.execute("PRAGMA synchronous = OFF")  # it is synced when it is whole
        source.execute("BEGIN")
        read_state(source)  # from here on it sees one state, whatever is committed
        source.backup(target, pages=_STEP_PAGES, progress=_rest)


def _rest(status: int, remaining: int, total: int) -> None:
    """Between two steps of a copy."""
    time.sleep(_REST_S)


def _head(state: StoreState, size_bytes: int, digest: bytes) -> SnapshotHead:
    if state.voters is None:
        raise StorageError("The store does not know the voters yet: there can be no snapshot.")
    return SnapshotHead(
        state.position,
        state.time_us,
        state.voters_index,
        state.voters_ballot,
        state.voters,
        size_bytes,
        digest,
    )


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def _measure(path: Path) -> tuple[int, bytes]:
    """Size and hash of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES))
        return file.tell(), digest.digest()


# --- believing and installing one ---------------------------------------------------------------


def look_at_snapshot(incoming: Path, head: SnapshotHead) -> None:
    """Read all of `incoming`: raises StorageError unless it is what `head` says, and sound.

    For a thread; the store may be in use. A second for each hundred thousand rows.
    """
    try:
        _believe(*_measure(incoming), head)
    except OSError as error:
        raise StorageError(f"The snapshot {incoming} cannot be read: {error}.") from error
    try:
        sync_file(incoming)
    except OSError as error:
        raise StorageError(f"The snapshot {incoming} cannot be installed: {error}.") from error
    try:
        with closing(open_reader(str(incoming), immutable=True)) as database:
            _check(database, head)
    except OSError as error:
        raise StorageError(f"The snapshot {incoming} cannot be read: {error}.") from error


def install_snapshot(incoming: Path, store_path: Path) -> None:
    """Make `incoming`, which was looked at, the store. A matter of milliseconds.

    No store may have `store_path` open. Raises StorageError: then the old store is what it was,
    unless the disk failed in the middle of the exchange, which the next opening completes.
    """
    store = os.fspath(store_path)
    try:
        with closing(FileLock(store)):
            exchange(incoming, store)
    except OSError as error:
        raise StorageError(f"The snapshot {incoming} cannot be installed: {error}.") from error


def load_snapshot(data: bytes, head: SnapshotHead) -> sqlite3.Connection:
    """The snapshot as a database in memory, once it is believed. Raises StorageError."""
    _believe(len(data), _digest(data), head)
    plain = bytearray(data)
    plain[_FORMAT_VERSIONS] = b"\1\1"  # in memory there is no write-ahead log (sqlite3_deserialize)
    database = sqlite3.connect(MEMORY, isolation_level=None)
    try:
        try:
            database.deserialize(bytes(plain))
        except sqlite3.Error as error:
            raise StorageError(f"The snapshot cannot be read: {error}.") from error
        _check(database, head)
    except BaseException:
        database.close()
        raise
    return database


def _believe(size_bytes: int, digest: bytes, head: SnapshotHead) -> None:
    if size_bytes != head.size_bytes:
        raise StorageError(f"The snapshot has {size_bytes} bytes, not {head.size_bytes}.")
    if digest != head.digest:
        raise StorageError("The snapshot was damaged on its way: its hash differs.")


def _check(database: sqlite3.Connection, head: SnapshotHead) -> None:
    try:
        check_copy(database, "The snapshot")
        state = read_state(database)
        if _head(state, head.size_bytes, head.digest) != head:
            raise StorageError(
                f"The snapshot holds another position, time or voters (entry {state.index}) than "
                f"its head says (entry {head.position.index})."
            )
        problem = next(copy_problems(database, state), None)
        if problem is not None:
            raise StorageError(f"The snapshot is wrong: {problem}.")
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter by an error's own words
        raise StorageError(f"The snapshot is damaged: {error}.") from error
