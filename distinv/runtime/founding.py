"""A new cluster from a store: an id of its own, one voter, and it goes on where the stock was."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import frozen

from distinv.entry import ClusterId, Position, Voter, VoterSet
from distinv.errors import ConfigError, StorageError
from distinv.inventory.digest import digest_of, stock_by_sku
from distinv.inventory.file import is_half_exchanged, sync_directory, sync_file
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import StoreState, check_copy, open_reader, read_state
from distinv.inventory.snapshot import write_snapshot
from distinv.runtime.set_aside import is_unfinished
from distinv.runtime.settings import random_id
from distinv.runtime.snapshots import STORE_FILE
from distinv.storage.api import BaseRecord, IdentityRecord, PromiseRecord, StorageContext
from distinv.storage.failures import DISK_FULL
from distinv.storage.journal import journal_storage

T = TypeVar("T")


@frozen
class Rescued:
    """What a backup holds, or a new cluster begins with."""

    cluster_name: str
    seq: int
    """Of the last command in it."""
    time_us: int
    """The cluster's time there, in microseconds since 1970."""
    position: Position
    """Its last log entry."""
    digest: str
    """The inventory digest at `seq`."""
    path: Path


def resolved(data_dir: Path) -> Path:
    """Directories are made beside it, so it must be named, wherever one is."""
    try:
        data_dir = data_dir.resolve()
    except RuntimeError:
        raise ConfigError(f"{data_dir} is a link that leads in a circle") from None
    if not data_dir.name:
        raise ConfigError(f"{data_dir} is no place for a server's data: name a directory in it")
    return data_dir


def not_mounted(data_dir: Path) -> Path:
    """Raises ConfigError."""
    if os.path.ismount(data_dir):
        raise ConfigError(
            f"{data_dir} is a mount point, and no directory can take its place: name a directory "
            "in it; what a server has in it directly has to be copied to one first"
        )
    return data_dir


def store_in(data_dir: Path) -> Path:
    """Raises ConfigError."""
    store = data_dir / STORE_FILE
    if is_unfinished(data_dir):
        raise ConfigError(
            f"{data_dir} belonged to a cluster that has dissolved, and a crash came while that was "
            "set aside: start the server once, it goes on with it"
        )
    if is_half_exchanged(store):
        raise ConfigError(
            f"a crash came while a snapshot took the place of {store}: start the server once, it "
            "goes on with it"
        )
    if not store.is_file():
        raise ConfigError(f"{data_dir} is no server's data directory: it holds no {STORE_FILE}")
    return store


def _refused(data_dir: Path, error: OSError) -> StorageError:
    where = error.filename2 or error.filename or data_dir  # of a copy the second is written
    reason = error.strerror or str(error)
    if error.errno in DISK_FULL:
        return _full(where, reason)
    return StorageError(
        f"{where}: the system refused ({reason}). "
        "Nothing is lost: see to that, then give the command again"
    )


def _full(where: object, reason: str) -> StorageError:
    return StorageError(
        f"{where}: the disk is full ({reason}). Nothing is lost: free some space, then give the "
        "command again"
    )


@contextmanager
def telling(data_dir: Path) -> Iterator[None]:
    """What the system refuses is told in one line, and not as a server would tell it."""
    try:
        yield
    except OSError as error:
        raise _refused(data_dir, error) from error
    except StorageError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, BlockingIOError):  # that is a lock
            raise _refused(data_dir, cause) from error
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise _full(data_dir, str(cause)) from error
        raise


def found(store: Path, data_dir: Path, server_name: str) -> Rescued:
    """A new directory with a copy of this store, and a journal that begins behind it.

    All of it is on the disk then, but for the directory's own name.
    """
    state = state_of(store)
    if state.voters is None or not state.position.index:
        raise StorageError(f"{store} is empty: there is nothing to begin with")
    name = state.voters.cluster_name
    node = random_id()
    voters = VoterSet(name, ClusterId(random_id()), (Voter(node, server_name),))
    data_dir.mkdir(parents=True)
    target = data_dir / STORE_FILE
    _copy_store(store, target)
    with closing(StateMachine(str(target))) as machine:
        problem = next(iter(machine.problems()), None)
        if problem is not None:
            raise StorageError(f"{store} is damaged: {problem}")
        machine.begin_cluster(voters)
        position, time_us, ballot = machine.position, machine.time_us, machine.position.ballot
    with closing(journal_storage(StorageContext(data_dir))) as storage:
        storage.recover()
        storage.commit(
            [
                IdentityRecord(node, name),
                PromiseRecord(ballot),
                BaseRecord(position, time_us, position.index, ballot, voters),
            ]
        )
    sync_directory(data_dir)
    return described(target)


def _copy_store(store: Path, target: Path) -> None:
    if Path(f"{store}-wal").exists():
        with closing(write_snapshot(str(store), target)):
            return
    shutil.copyfile(store, target)
    sync_file(target)


def keep_owner(old: Path, made: Path) -> None:
    """Whose `old` is, and who may read it, holds for `made` too: often another user, as root,
    gives the command.

    No file is more open than the one of its name was, nor than the store; it may be less.
    """
    owner, store = old.stat(), old / STORE_FILE
    of_files = store.stat().st_mode if store.exists() else 0o777
    for path in (made, *sorted(made.rglob("*"))):
        like, twin = owner.st_mode if path.is_dir() else of_files, old / path.relative_to(made)
        mode = (twin if twin.exists() else path).stat().st_mode & like
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(mode))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def state_of(store: Path) -> StoreState:
    def read(database: sqlite3.Connection) -> StoreState:
        check_copy(database, str(store))
        return read_state(database)

    return read_with(store, read)


def described(store: Path) -> Rescued:
    state, digest = read_with(
        store, lambda database: (read_state(database), digest_of(stock_by_sku(database)))
    )
    name = state.voters.cluster_name if state.voters is not None else ""
    return Rescued(name, state.seq, state.time_us, state.position, digest, store)


def read_with(store: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Nothing is left beside a backup, which may lie where nobody can write."""
    try:
        immutable = not Path(f"{store}-wal").exists()
        with closing(open_reader(str(store), immutable=immutable)) as database:
            return read(database)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"{store} cannot be read: {error}. It is damaged, or no store of distinv's"
        ) from error
