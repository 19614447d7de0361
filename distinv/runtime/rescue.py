"""Backups, and the two ways back from the loss of a majority: from a backup, or from one server.

Either way a *new* cluster begins, with an id of its own and one voter, and goes on where the stock
was: what is left of the old one never mixes with it (both raise an alarm when they meet), and new
servers join it as they join any other. Nothing is changed in place: a directory is made beside,
and exchanged at the end.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from distinv.entry import ClusterId, Position, Voter, VoterSet
from distinv.errors import ConfigError, StorageError
from distinv.inventory.digest import digest_of, stock_by_sku
from distinv.inventory.file import sync_directory, sync_file
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import StoreState, check_copy, open_reader, read_state
from distinv.inventory.snapshot import write_snapshot
from distinv.runtime.set_aside import ASIDE, is_unfinished
from distinv.runtime.settings import random_id
from distinv.runtime.snapshots import STORE_FILE
from distinv.storage.api import (
    BaseRecord,
    IdentityRecord,
    PromiseRecord,
    Recovered,
    StorageContext,
)
from distinv.storage.failures import disk_failure
from distinv.storage.journal import journal_storage
from distinv.storage.lock import lock_directory

T = TypeVar("T")


@frozen
class Rescued:
    """What a backup holds, or a new cluster begins with."""

    cluster_name: str
    seq: int
    """Of the last command in it."""
    position: Position
    digest: str
    """The inventory digest at `seq`."""
    path: Path


def back_up(data_dir: Path, path: Path) -> Rescued:
    """Copy a server's store to the file `path`, whether or not the server runs.

    What was acknowledged less than about a second ago may be missing: the copy says up to which
    seq it goes. Raises StorageError, and ConfigError when `path` exists or there is no store.
    """
    store = data_dir / STORE_FILE
    if not store.is_file():
        raise ConfigError(f"{data_dir} is no server's data directory: it holds no {STORE_FILE}")
    if path.exists():
        raise ConfigError(f"{path} exists already: name another file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no directory {path.parent}: make it, or name another file")
    if _read(store, read_state).voters is None:
        raise StorageError(f"{store} is empty as yet: try again in a moment")
    with closing(write_snapshot(str(store), path)) as copy:
        return _described(copy.path)


def restore(path: Path, data_dir: Path) -> Rescued:
    """Make `data_dir` the first server of a new cluster with what the backup holds.

    Raises StorageError for a backup that is damaged, ConfigError when `data_dir` exists.
    """
    if not path.is_file():
        raise ConfigError(f"there is no backup {path}")
    _must_be_free(data_dir)
    made = data_dir.with_name(data_dir.name + ".unfinished")
    shutil.rmtree(made, ignore_errors=True)
    found = _found(path, made, data_dir.resolve().name)
    try:
        if data_dir.exists():
            data_dir.rmdir()
        made.rename(data_dir)
        sync_directory(data_dir.parent)
    except OSError as error:
        raise disk_failure(data_dir, error) from error
    return evolve(found, path=data_dir / STORE_FILE)


def recover(data_dir: Path) -> Rescued:
    """Make a stopped server the first one of a new cluster, with everything that it has.

    It keeps its whole log, also what it does not know to be committed: some of that may have been
    acknowledged. What only the lost servers had is lost. The old directory is kept beside the new
    one, as `….before-recovery`. Raises StorageError, ConfigError.
    """
    aside = data_dir.with_name(data_dir.name + ".before-recovery")
    if aside.exists():
        raise ConfigError(
            f"{aside} exists already: {data_dir} was recovered before. Move that away first, if "
            "it has to be done again"
        )
    _must_be_whole(data_dir)
    if not (data_dir / STORE_FILE).is_file():
        raise ConfigError(f"{data_dir} is no server's data directory: it holds no {STORE_FILE}")
    copy, made = (data_dir.with_name(f"{data_dir.name}.{end}") for end in ("copy", "recovered"))
    for left in (copy, made):
        shutil.rmtree(left, ignore_errors=True)  # of an attempt that was interrupted
    lock = lock_directory(data_dir)
    try:
        shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns(ASIDE))
        _apply_everything(copy)
        found = _found(copy / STORE_FILE, made, data_dir.resolve().name)
        shutil.rmtree(copy)
        data_dir.rename(aside)
        made.rename(data_dir)
        sync_directory(data_dir.parent)
    except OSError as error:
        raise disk_failure(data_dir, error) from error
    finally:
        os.close(lock)
    return evolve(found, path=data_dir / STORE_FILE)


def inspect(data_dir: Path) -> Rescued:
    """What a server's store holds; its log may reach further. Raises StorageError, ConfigError."""
    _must_be_whole(data_dir)
    store = data_dir / STORE_FILE
    if not store.is_file():
        raise ConfigError(f"{data_dir} is no server's data directory: it holds no {STORE_FILE}")
    return _described(store)


def _must_be_whole(data_dir: Path) -> None:
    if is_unfinished(data_dir):
        raise ConfigError(
            f"{data_dir} belonged to a cluster that has dissolved, and a crash came while that was "
            "set aside: start the server once, it goes on with it"
        )


def _must_be_free(data_dir: Path) -> None:
    if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
        raise ConfigError(f"{data_dir} exists already and is not empty: name another directory")


def _apply_everything(data_dir: Path) -> None:
    """Bring the store to the end of the log; locks the directory meanwhile."""
    with closing(journal_storage(StorageContext(data_dir))) as storage:
        recovered = storage.recover()
        with closing(StateMachine(str(data_dir / STORE_FILE))) as machine:
            for entry in recovered.entries[machine.position.index - _base_of(recovered) :]:
                machine.apply(entry)


def _base_of(recovered: Recovered) -> int:
    return 0 if recovered.base is None else recovered.base.position.index


def _found(store: Path, data_dir: Path, server_name: str) -> Rescued:
    """A new directory with a copy of this store, and a journal that begins behind it."""
    state = _state_of(store)
    if state.voters is None or not state.position.index:
        raise StorageError(f"{store} is empty: there is nothing to begin with")
    name = state.voters.cluster_name
    node = random_id()
    voters = VoterSet(name, ClusterId(random_id()), (Voter(node, server_name),))
    try:
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
    except OSError as error:
        raise disk_failure(data_dir, error) from error
    return _described(target)


def _copy_store(store: Path, target: Path) -> None:
    if Path(f"{store}-wal").exists():
        with closing(write_snapshot(str(store), target)):
            return
    shutil.copyfile(store, target)
    sync_file(target)


def _state_of(store: Path) -> StoreState:
    def read(database: sqlite3.Connection) -> StoreState:
        check_copy(database, str(store))
        return read_state(database)

    return _read(store, read)


def _described(store: Path) -> Rescued:
    state, digest = _read(
        store, lambda database: (read_state(database), digest_of(stock_by_sku(database)))
    )
    name = state.voters.cluster_name if state.voters is not None else ""
    return Rescued(name, state.seq, state.position, digest, store)


def _read(store: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Nothing is left beside a backup, which may lie where nobody can write."""
    try:
        immutable = not Path(f"{store}-wal").exists()
        with closing(open_reader(str(store), immutable=immutable)) as database:
            return read(database)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(
            f"{store} cannot be read: {error}. It is damaged, or no store of distinv's"
        ) from error
