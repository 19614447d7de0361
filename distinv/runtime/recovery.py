"""Beginning anew from what one server has, when a majority of the others is lost for good.

The new directory is made in a folder beside the old one, and the two are exchanged by two renames,
which cannot be one step: before the first the new one is whole and on the disk, and has the name
that says so. Whatever comes in between is gone on with; a server does not start meanwhile.
"""

from __future__ import annotations

import errno
import shutil
from contextlib import closing
from enum import Enum, auto
from pathlib import Path

from attrs import evolve

from distinv.config import Limits
from distinv.entry import Ballot, Position
from distinv.errors import ConfigError, CorruptLog, StorageError
from distinv.inventory.file import sync_directory
from distinv.inventory.machine import StateMachine
from distinv.runtime.founding import (
    Rescued,
    described,
    found,
    keep_owner,
    not_mounted,
    resolved,
    store_in,
    telling,
)
from distinv.runtime.reconcile import reconcile
from distinv.runtime.snapshots import HEAD_FILE, STORE_FILE, FileDepot
from distinv.storage.api import StorageContext
from distinv.storage.files import Files
from distinv.storage.index import JournalState
from distinv.storage.journal import journal_storage
from distinv.storage.lock import LOCK_FILE, locked, looked_at
from distinv.storage.scan import scan
from distinv.storage.segments import segment_numbers, segment_path

_WHOLE = "whole"
"""A new directory that has everything and is on the disk, in the folder of a recovery."""
_JOURNAL = "journal"
_NEEDED = (STORE_FILE, f"{STORE_FILE}-wal", HEAD_FILE)
"""Beside the journal; the rest is what was set aside, or made for others."""


class _Stage(Enum):
    """How far an earlier recovery has come."""

    NONE = auto()
    EXCHANGING = auto()
    """The old directory is put aside, and the new one is not in its place."""
    EXCHANGED = auto()
    """Only its last traces were left to remove."""


def _aside(data_dir: Path) -> Path:
    return data_dir.with_name(data_dir.name + ".before-recovery")


def _folder(data_dir: Path) -> Path:
    return data_dir.with_name(f".{data_dir.name}.recovering")


def _stage(data_dir: Path) -> _Stage:
    folder = _folder(data_dir)
    if not _aside(data_dir).is_dir() or not folder.is_dir():
        return _Stage.NONE
    if (folder / _WHOLE).is_dir():
        return _Stage.EXCHANGING
    return _Stage.EXCHANGED if data_dir.is_dir() and not any(folder.iterdir()) else _Stage.NONE


def check_not_interrupted(data_dir: Path) -> None:
    """For a server that is to start: it would begin with nothing. Raises ConfigError."""
    data_dir = resolved(data_dir)
    try:
        stage = _stage(data_dir)
    except OSError:
        return  # whoever opens the directory finds out why
    if stage is _Stage.EXCHANGING:
        raise ConfigError(
            f"a recovery of {data_dir} was interrupted, or is under way: give `distinv recover "
            f"--data {data_dir}` again, it goes on with it; then start the server"
        )


def recover(data_dir: Path) -> Rescued:
    """Make a stopped server the first one of a new cluster, with everything that it has.

    It keeps its whole log, also what it does not know to be committed: some of that may have been
    acknowledged. What only the lost servers had is lost. The old directory is kept beside the new
    one, as `….before-recovery`. What was interrupted is gone on with. Raises StorageError,
    ConfigError.
    """
    with telling(data_dir):
        data_dir = not_mounted(resolved(data_dir))
        aside, folder, stage = _aside(data_dir), _folder(data_dir), _stage(data_dir)
        if stage is _Stage.NONE:
            if aside.exists():
                raise ConfigError(
                    f"{aside} exists already: {data_dir} was recovered before. Move that away "
                    "first, if it has to be done again"
                )
            store_in(data_dir)
            with locked(data_dir):  # a server that had looked before finds it locked to the end
                _prepare(data_dir, folder)
                _put_aside(data_dir)
                _put_in_place(data_dir)
        elif stage is _Stage.EXCHANGING:
            with locked(aside):
                _put_in_place(data_dir)
        folder.rmdir()
    return described(data_dir / STORE_FILE)


def _put_aside(data_dir: Path) -> None:
    aside = _aside(data_dir)
    try:
        data_dir.rename(aside)
    except OSError as error:
        if not aside.exists():
            shutil.rmtree(_folder(data_dir), ignore_errors=True)
        if error.errno == errno.EBUSY:  # as a part of another file system that is mounted here
            raise ConfigError(
                f"{data_dir} cannot be renamed ({error.strerror}), as a mount point cannot: name a "
                "directory in it; what a server has in it directly has to be copied to one first"
            ) from error
        raise
    sync_directory(data_dir.parent)


def _put_in_place(data_dir: Path) -> None:
    _make_room(data_dir)
    (_folder(data_dir) / _WHOLE).rename(data_dir)
    sync_directory(data_dir.parent)


def _make_room(data_dir: Path) -> None:
    """A server that was started in between has left its lock; one that has left more began anew."""
    if not data_dir.exists():
        return
    if {path.name for path in data_dir.iterdir()} <= {LOCK_FILE}:
        with locked(data_dir):
            (data_dir / LOCK_FILE).unlink()
            data_dir.rmdir()
        return
    raise ConfigError(
        f"a server was started on {data_dir} while its recovery was interrupted, and began with "
        "nothing there: stop it, move that directory away, and give the command again. What is "
        f"recovered is safe in {_folder(data_dir)}: leave it there"
    )


def inspect(data_dir: Path) -> Rescued:
    """What a stopped server has: `seq` is as far as its store has come, `position` its log's end.

    Raises StorageError, ConfigError.
    """
    with telling(data_dir):
        data_dir = resolved(data_dir)
        if _stage(data_dir) is _Stage.EXCHANGING:
            return described(_folder(data_dir) / _WHOLE / STORE_FILE)
        seen = described(store_in(data_dir))
        with looked_at(data_dir):
            log = _log_of(data_dir)
            if log.node is None and seen.position.index:
                raise StorageError(
                    f"{data_dir} has a store, and a journal that holds nothing. {_way_on(data_dir)}"
                )
    name = log.cluster_name or seen.cluster_name
    return evolve(seen, cluster_name=name, position=max(log.last, seen.position, key=_place))


def _log_of(data_dir: Path) -> JournalState:
    """Nothing is written. Raises StorageError."""
    if not (data_dir / _JOURNAL).is_dir():
        raise StorageError(
            f"{data_dir} has a store and no journal, so nobody knows what its log held. "
            f"{_way_on(data_dir)}"
        )
    try:
        return scan(Files(), data_dir / _JOURNAL).state
    except CorruptLog as error:
        raise CorruptLog(f"{error} {_way_on(data_dir)}") from error


def _way_on(data_dir: Path) -> str:
    return (
        f"If nothing else is left: `distinv backup FILE --data {data_dir}` saves what is in the "
        "store, and `distinv restore FILE --data ANOTHER` begins with it in another directory; "
        "what only the journal held, its last part, is lost"
    )


def _place(position: Position) -> tuple[Ballot, int]:
    return position.ballot, position.index


# --- the new directory --------------------------------------------------------------------------


def _prepare(data_dir: Path, folder: Path) -> None:
    """Make the new directory, whole and durable, in `folder`."""
    _log_of(data_dir)
    if folder.exists():
        shutil.rmtree(folder)  # of an attempt that was interrupted: the old directory is in place
    folder.mkdir(0o700)
    copy, made = folder / "copy", folder / "made"
    try:
        _copy_needed(data_dir, copy)
        _apply_everything(copy, data_dir)
        found(copy / STORE_FILE, made, data_dir.name)
        shutil.rmtree(copy)
        keep_owner(data_dir, made)
    except StorageError as error:
        shutil.rmtree(folder, ignore_errors=True)
        told = str(error).replace(str(copy), str(data_dir))  # of the copy nobody knows
        raise type(error)(told) from error.__cause__
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made.rename(folder / _WHOLE)
    sync_directory(folder)
    sync_directory(folder.parent)


def _copy_needed(data_dir: Path, copy: Path) -> None:
    old, new = data_dir / _JOURNAL, copy / _JOURNAL
    new.mkdir(parents=True)
    for number in segment_numbers(Files(), old):
        shutil.copyfile(segment_path(old, number), segment_path(new, number))
    for name in _NEEDED:
        if (data_dir / name).exists():
            shutil.copyfile(data_dir / name, copy / name)


def _apply_everything(copy: Path, data_dir: Path) -> None:
    """Bring the store in `copy`, which was made of `data_dir`, to the end of the log."""
    with closing(journal_storage(StorageContext(copy))) as storage:
        recovered = storage.recover()
        with closing(StateMachine(str(copy / STORE_FILE))) as machine:
            installed = FileDepot(copy, Limits()).installed()
            try:
                recovered, _ = reconcile(machine, recovered, installed, data_dir)
            except StorageError as error:
                raise StorageError(f"{error} {_way_on(data_dir)}") from error
            base = 0 if recovered.base is None else recovered.base.position.index
            for entry in recovered.entries[machine.position.index - base :]:
                machine.apply(entry)
