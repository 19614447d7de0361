"""A store's file while this process holds it: the lock, the threads, the sync, the exchange.

Two rules of SQLite's stand behind what is done here ("How To Corrupt An SQLite Database File",
2.2 and 4.2): a process that closes *any* descriptor of a file loses every lock it has on it,
and a write-ahead log is played back into whatever file of its name it finds.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from distinv.entry import ORIGIN, Position
from distinv.errors import StorageError
from distinv.inventory.schema import open_second

_ROUNDS = 4
"""The log begins anew only if all of it is copied when a transaction begins. Under load commits
come while the first round runs; what comes during the second or third is next to nothing."""
_INSTALL = "-install"
_BESIDE = ("-wal", "-shm", "-journal")


class FileLock:
    """Held from construction to `close`; ends with the process, whatever happens to it."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        """Raises StorageError when another store holds the file."""
        lock = Path(f"{path}.lock")
        try:
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"The store {path} cannot be opened: {error}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StorageError(
                f"The store {path} is in use: close the other one first, or name another file."
            ) from error

    def close(self) -> None:
        os.close(self._descriptor)


class StoreFile:
    """The file of an open store, from before it is opened until nobody uses it any more.

    Threads use connections of their own, inside `in_use`. The lock is given back when the store
    is closed and the last thread is done: until then nobody can exchange the file.
    """

    __slots__ = (
        "_closed",
        "_descriptor",
        "_durable",
        "_failed",
        "_lock",
        "_mutex",
        "_syncing",
        "_users",
        "path",
    )

    def __init__(self, path: str) -> None:
        """Raises StorageError when another store holds the file."""
        self.path = path
        self._lock = FileLock(path)
        try:
            finish_install(path)
        except OSError as error:
            self._lock.close()
            raise StorageError(f"The store {path} cannot be opened: {error}.") from error
        self._mutex = Lock()
        self._syncing = Lock()
        self._descriptor: int | None = None
        self._users = 0
        self._closed = False
        self._failed = False
        self._durable = ORIGIN
        """Guarded by `_syncing`. Never falls."""

    def watch(self) -> None:
        """Be told from now on when the system fails to write the file. Raises StorageError.

        The descriptor stays open as long as the store is: one that was opened just for a sync
        might not be told of what failed before, and could not be closed.
        """
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            sync_directory(Path(self.path).parent)
        except OSError as error:
            raise StorageError(f"The store {self.path} cannot be opened: {error}.") from error

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For any thread: the file stays what it is. Raises StorageError when it is closed."""
        with self._mutex:
            if self._closed:
                raise StorageError(f"The store {self.path} is closed.")
            self._users += 1
        try:
            yield
        finally:
            with self._mutex:
                self._users -= 1
                self._release_if_idle()

    def close(self) -> None:
        """After the store's own connection was closed. Closing twice is allowed."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._release_if_idle()

    def _release_if_idle(self) -> None:
        if self._closed and self._users == 0:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._lock.close()

    def checkpoint(self, position: Position) -> Position:
        """Bring what is committed into the database file: the position that is durable in it.

        For a thread. `position` was committed before the call. The answer is `position` or a
        later one when everything was copied and synced, otherwise the last that was known; it
        never falls. A crash does not take it back: a later checkpoint that stops half-way leaves
        pages of several states in the file, but before it copied the first, SQLite had synced
        the log that puts them right.

        Raises StorageError: then nothing of the store may be trusted, and as a failed sync is
        not made good by a second, every further call fails.
        """
        with self.in_use(), self._syncing:
            if self._failed:
                raise StorageError(f"The store {self.path} could not be synced before.")
            try:
                if _copy_log(self.path) and position.index > self._durable.index:
                    assert self._descriptor is not None, "checkpoint before watch"
                    os.fsync(self._descriptor)
                    self._durable = position
            except (OSError, sqlite3.Error) as error:
                self._failed = True
                raise StorageError(f"The store {self.path} cannot be synced: {error}.") from error
            return self._durable


def _copy_log(path: str) -> bool:
    """Copy the write-ahead log into the database file: whether all committed before is there now.

    `PRAGMA wal_checkpoint(PASSIVE)` waits for nobody and nobody waits for it. It answers

    - busy: 1 when somebody else checkpoints just now (then the others are -1),
    - log: the frames of the log as it was when the call began, so those of all earlier commits
      (0 when the log was begun anew, which SQLite does only when the file has everything),
    - checkpointed: how many of the first frames need not be copied any more; fewer than log
      when a reader of an older state still needs the file as it is. A log begun anew behind the
      call gives 0.

    So the two are equal and not negative only if everything is in the file. In the file is not
    on the disk: SQLite syncs it only if no commit came while it copied (wal.c compares with the
    log's newest header, then lets `checkpointed` grow all the same). The caller has to sync.
    """
    database = open_second(path)
    try:
        whole, frames = _copy_once(database)
        for _ in range(_ROUNDS if whole else 0):
            before = frames
            _, frames = _copy_once(database)
            if frames == before:
                break  # nothing was committed meanwhile, and the next commit begins the log anew
        return whole
    finally:
        database.close()


def _copy_once(database: sqlite3.Connection) -> tuple[bool, int]:
    """Whether everything there was is copied, and how many frames the log had."""
    busy, log, checkpointed = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(busy == 0 and log == checkpointed >= 0), log


# --- exchanging the file ------------------------------------------------------------------------


def exchange(new: Path, path: str) -> None:
    """Put the synced file `new` in the place of a store's. Wants the lock. Raises OSError.

    A crash leaves the old store or the new one, never the old log beside the new file:

    - before `new` has the name `<path>-install` on the disk, the old store is untouched;
    - from then on the new store is the store: whoever takes the lock next does the rest first
      (`finish_install`), and may be stopped and begin again any number of times.
    """
    target = Path(path + _INSTALL)
    os.replace(new, target)
    sync_directory(target.parent)
    if new.parent != target.parent:
        sync_directory(new.parent)
    finish_install(path)


def is_half_exchanged(path: Path) -> bool:
    """Whoever opens this store next completes an `exchange`; until then it may be torn."""
    return path.with_name(path.name + _INSTALL).exists()


def finish_install(path: str) -> None:
    """Do the rest of an `exchange` that had begun. Wants the lock. Raises OSError.

    The old write-ahead log is gone from the disk before the new file has the store's name.
    Without its log the old file may be torn, but nobody opens it any more.
    """
    new = Path(path + _INSTALL)
    if not new.exists():
        return
    for beside in _BESIDE:
        Path(path + beside).unlink(missing_ok=True)
    sync_directory(new.parent)
    os.replace(new, path)
    sync_directory(new.parent)


def sync_file(path: Path) -> None:
    """Not for a file that SQLite has open: see above. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin_to_write(descriptor: int, offset: int, size: int) -> None:
    """Let the system begin to write this part to the disk, and do not wait for it.

    A sync at the end finds little to do then: else it takes the disk from everybody else's syncs.
    Linux takes this advice as that wish; where it is unknown, nothing happens. Raises OSError.
    """
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def sync_directory(path: Path) -> None:
    """Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
