"""Backups, and the two ways back from the loss of a majority: from a backup, or from one server.

Either way a *new* cluster begins, with an id of its own and one voter, and goes on where the stock
was: what is left of the old one never mixes with it (both raise an alarm when they meet), and new
servers join it as they join any other. Nothing is changed in place: a directory is made beside,
and exchanged at the end.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from attrs import evolve, frozen

from distinv.config import Limits
from distinv.entry import Ballot, ClusterId, Position, Voter, VoterSet
from distinv.errors import ConfigError, StorageError
from distinv.inventory.digest import digest_of, stock_by_sku
from distinv.inventory.file import is_half_exchanged, sync_directory, sync_file
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import StoreState, check_copy, open_reader, read_state
from distinv.inventory.snapshot import write_snapshot
from distinv.runtime.reconcile import reconcile
from distinv.runtime.set_aside import ASIDE, is_unfinished
from distinv.runtime.settings import random_id
from distinv.runtime.snapshots import STORE_FILE, FileDepot
from distinv.storage.api import BaseRecord, IdentityRecord, PromiseRecord, StorageContext
from distinv.storage.files import Files
from distinv.storage.journal import journal_storage
from distinv.storage.lock import locked
from distinv.storage.scan import scan

T = TypeVar("T")

_WHOLE = "whole"
"""A new directory that has everything and is on the disk, in the folder of a recovery."""


_MADE_FOR_OTHERS = "snapshot-*"


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


def back_up(data_dir: Path, path: Path) -> Rescued:
    """Copy a server's store to the file `path`, whether or not the server runs.

    The copy says up to which seq it goes. What was acknowledged later is not in it: a second's
    worth at a server that keeps up, more at one that lags or is cut off. Raises StorageError, and
    ConfigError when `path` exists or there is no store.
    """
    with _telling(data_dir):
        store = _store_in(data_dir)
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
    with _telling(data_dir):
        if not path.is_file():
            raise ConfigError(f"there is no backup {path}")
        data_dir = _resolved(data_dir)
        if data_dir.exists() and (not data_dir.is_dir() or any(data_dir.iterdir())):
            raise ConfigError(f"{data_dir} exists already and is not empty: name another directory")
        made = data_dir.with_name(f".{data_dir.name}.restoring")
        shutil.rmtree(made, ignore_errors=True)  # of an attempt that was interrupted
        found = _found(path, made, data_dir.name)
        if data_dir.exists():
            data_dir.rmdir()
        made.rename(data_dir)
        sync_directory(data_dir.parent)
    return evolve(found, path=data_dir / STORE_FILE)


def recover(data_dir: Path) -> Rescued:
    """Make a stopped server the first one of a new cluster, with everything that it has.

    It keeps its whole log, also what it does not know to be committed: some of that may have been
    acknowledged. What only the lost servers had is lost. The old directory is kept beside the new
    one, as `….before-recovery`. What was interrupted is gone on with. Raises StorageError,
    ConfigError.

    Two renames cannot be one step. Before the first the new directory is whole and on the disk,
    and it has the name that says so.
    """
    with _telling(data_dir):
        data_dir = _resolved(data_dir)
        aside, folder = _aside(data_dir), _folder(data_dir)
        if not _is_interrupted(data_dir):
            if aside.exists():
                raise ConfigError(
                    f"{aside} exists already: {data_dir} was recovered before. Move that away "
                    "first, if it has to be done again"
                )
            _store_in(data_dir)
            with locked(data_dir):
                _prepare(data_dir, folder)
                data_dir.rename(aside)
                sync_directory(data_dir.parent)
        (folder / _WHOLE).rename(data_dir)
        sync_directory(data_dir.parent)
        folder.rmdir()
    return _described(data_dir / STORE_FILE)


def inspect(data_dir: Path) -> Rescued:
    """What a stopped server has: `seq` is as far as its store has come, `position` its log's end.

    Raises StorageError, ConfigError.
    """
    with _telling(data_dir):
        data_dir = _resolved(data_dir)
        if _is_interrupted(data_dir):
            return _described(_folder(data_dir) / _WHOLE / STORE_FILE)
        found = _described(_store_in(data_dir))
        with locked(data_dir):
            log = scan(Files(), data_dir / "journal").state
    name = log.cluster_name or found.cluster_name
    return evolve(found, cluster_name=name, position=max(log.last, found.position, key=_place))


def _place(position: Position) -> tuple[Ballot, int]:
    return position.ballot, position.index


def _resolved(data_dir: Path) -> Path:
    """Directories are made beside it, so it must be named, wherever one is."""
    data_dir = data_dir.resolve()
    if not data_dir.name:
        raise ConfigError(f"{data_dir} is no place for a server's data: name a directory in it")
    return data_dir


def _store_in(data_dir: Path) -> Path:
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


@contextmanager
def _telling(data_dir: Path) -> Iterator[None]:
    """What the system refuses is told in one line."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or data_dir}: the system refused ({error.strerror or error}). "
            "Nothing is lost: see to that, then give the command again"
        ) from error


# --- a recovery, step by step -------------------------------------------------------------------


def _aside(data_dir: Path) -> Path:
    return data_dir.with_name(data_dir.name + ".before-recovery")


def _folder(data_dir: Path) -> Path:
    return data_dir.with_name(f".{data_dir.name}.recovering")


def _is_interrupted(data_dir: Path) -> bool:
    """The old directory is put aside, and the new one is not in its place."""
    whole = _folder(data_dir) / _WHOLE
    return not data_dir.exists() and _aside(data_dir).is_dir() and whole.is_dir()


def _prepare(data_dir: Path, folder: Path) -> None:
    """Make the new directory, whole and durable, in `folder`."""
    if folder.exists():
        shutil.rmtree(folder)  # of an attempt that was interrupted
    folder.mkdir()
    copy, made = folder / "copy", folder / "made"
    try:
        unwanted = shutil.ignore_patterns(ASIDE, _MADE_FOR_OTHERS)
        shutil.copytree(data_dir, copy, ignore=unwanted)
        _apply_everything(copy)
        _found(copy / STORE_FILE, made, data_dir.name)
        shutil.rmtree(copy)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made.rename(folder / _WHOLE)
    sync_directory(folder)
    sync_directory(folder.parent)


def _apply_everything(data_dir: Path) -> None:
    """Bring the store to the end of the log; locks the directory meanwhile."""
    with closing(journal_storage(StorageContext(data_dir))) as storage:
        recovered = storage.recover()
        with closing(StateMachine(str(data_dir / STORE_FILE))) as machine:
            installed = FileDepot(data_dir, Limits()).installed()
            recovered, _ = reconcile(machine, recovered, installed, data_dir)
            base = 0 if recovered.base is None else recovered.base.position.index
            for entry in recovered.entries[machine.position.index - base :]:
                machine.apply(entry)


# --- a new cluster ------------------------------------------------------------------------------


def _found(store: Path, data_dir: Path, server_name: str) -> Rescued:
    """A new directory with a copy of this store, and a journal that begins behind it.

    All of it is on the disk then, but for the directory's own name.
    """
    state = _state_of(store)
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
    return Rescued(name, state.seq, state.time_us, state.position, digest, store)


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
