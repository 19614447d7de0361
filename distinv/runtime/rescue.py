"""Backups, and beginning anew with one.

Either way back from the loss of a majority (from a backup, or from one server: `recovery.py`)
begins a *new* cluster, with an id of its own and one voter, which goes on where the stock was: what
is left of the old one never mixes with it (both raise an alarm when they meet), and new servers
join it as they join any other. Nothing is changed in place: all is made beside, and gets its name
at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attrs import evolve

from distinv.errors import ConfigError, StorageError
from distinv.inventory.check import copy_problems, problems
from distinv.inventory.file import is_half_exchanged, sync_directory
from distinv.inventory.rules import LIMITS
from distinv.inventory.schema import StoreState, check_copy, read_state
from distinv.inventory.snapshot import SnapshotFile, write_snapshot
from distinv.runtime.founding import (
    Rescued,
    described,
    found,
    keep_owner,
    not_mounted,
    read_with,
    resolved,
    store_in,
    telling,
)
from distinv.runtime.recovery import check_not_interrupted
from distinv.runtime.snapshots import STORE_FILE
from distinv.storage.files import Files

_TRIES = 3
"""A server takes minutes from one snapshot to the next."""
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without links answer, and systems that forbid them."""


def back_up(data_dir: Path, path: Path) -> Rescued:
    """Copy a server's store to the file `path`, whether or not the server runs.

    The copy says up to which seq it goes. What was acknowledged later is not in it: a second's
    worth at a server that keeps up, more at one that lags or is cut off. All of it is read before
    it gets its name. Raises StorageError, and ConfigError when `path` exists or there is no store.
    """
    with telling(path):
        check_not_interrupted(data_dir)
        store = store_in(data_dir)
        if os.path.lexists(path):
            raise ConfigError(f"{path} exists already: name another file")
        parent = path.absolute().parent
        if not parent.is_dir():
            raise ConfigError(f"there is no directory {path.parent}: make it, or name another file")
        if parent.resolve().is_relative_to(resolved(data_dir)):
            raise ConfigError(f"{path} is in the server's own directory: name a file elsewhere")
        if read_with(store, read_state).voters is None:
            raise StorageError(f"{store} is empty as yet: try again in a moment")
        with _beside(path) as folder:
            with closing(_copied(store, folder / "backup")) as copy:
                read_with(copy.path, lambda database: _believe(database, store))
                told = described(copy.path)
                _publish(copy.path, path)
            sync_directory(parent)
    return evolve(told, path=path)


def _copied(store: Path, path: Path) -> SnapshotFile:
    """A server may put a snapshot in the place of its store meanwhile. What was read then may be
    the old file without its log, or half of it."""
    for _ in range(_TRIES):
        before = store.stat().st_ino
        try:
            copy = write_snapshot(str(store), path)
        except StorageError:
            if _is_still(store, before):
                raise
        else:
            if _is_still(store, before):
                return copy
            copy.close()
    raise StorageError(f"{store} is exchanged again and again: try again in a moment")


def _is_still(store: Path, inode: int) -> bool:
    return store.stat().st_ino == inode and not is_half_exchanged(store)


def _believe(database: sqlite3.Connection, store: Path) -> None:
    """Raises StorageError when it could not be restored."""
    try:
        check_copy(database, str(store))
        problem = next(_problems(database, read_state(database)), None)
    except (StorageError, sqlite3.Error, UnicodeDecodeError) as error:
        problem = str(error)
    if problem is not None:
        raise StorageError(
            f"{store} is damaged, and so would be its backup ({problem}): back up another server, "
            "and give this one an empty directory: it fetches everything anew"
        )


def _problems(database: sqlite3.Connection, state: StoreState) -> Iterator[str]:
    """What a restoration finds, the whole ledger included."""
    yield from copy_problems(database, state)
    yield from problems(database, state.seq, int.from_bytes(state.digest_sum, "big"), LIMITS)


def _publish(made: Path, path: Path) -> None:
    """Give it its name, which nobody may have taken meanwhile."""
    try:
        os.link(made, path)
    except FileExistsError:
        raise ConfigError(f"{path} exists already: name another file") from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise ConfigError(f"{path} exists already: name another file") from None
        made.rename(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder of one's own beside `path`, for as long as the work takes."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.absolute().parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def restore(path: Path, data_dir: Path) -> Rescued:
    """Make `data_dir` the first server of a new cluster with what the backup holds.

    Raises StorageError for a backup that is damaged, ConfigError when `data_dir` exists.
    """
    with telling(data_dir):
        if not path.is_file():
            raise ConfigError(f"there is no backup {path}")
        data_dir = not_mounted(resolved(data_dir))
        check_not_interrupted(data_dir)
        taken = f"{data_dir} exists already and is not empty: name another directory"
        if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
            raise ConfigError(taken)
        if not data_dir.parent.exists():
            Files().make_directory(data_dir.parent)
        with _beside(data_dir) as folder:
            told = found(path, folder / "made", data_dir.name)
            if data_dir.exists():
                keep_owner(data_dir, folder / "made")
            try:
                (folder / "made").rename(data_dir)  # in the place of one that is empty, too
            except OSError:
                if data_dir.exists() and any(data_dir.iterdir()):
                    raise ConfigError(taken) from None
                raise
            sync_directory(data_dir.parent)
    return evolve(told, path=data_dir / STORE_FILE)
