"""Beginning anew from what one server has, when a majority of the others is lost for good.

The new directory is made in a folder beside the old one, and the two are exchanged by two renames,
which cannot be one step: before the first the new one is whole and on the disk, and has the name
that says so. Whatever comes in between is gone on with; a server does not start meanwhile.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import closing
from enum import Enum, auto
from pathlib import Path

from attrs import evolve

from distinv.config import Limits
from distinv.entry import Ballot, Position
from distinv.errors import ConfigError, StorageError
from distinv.inventory.file import sync_directory
from distinv.inventory.machine import StateMachine
from distinv.runtime.founding import (
    Rescued,
    described,
    found,
    not_mounted,
    resolved,
    store_in,
    telling,
)
from distinv.runtime.reconcile import reconcile
from distinv.runtime.snapshots import HEAD_FILE, STORE_FILE, FileDepot
from distinv.storage.api import StorageContext
from distinv.storage.files import Files
from distinv.storage.journal import journal_storage
from distinv.storage.lock import LOCK_FILE, locked
from distinv.storage.scan import scan

_WHOLE = "whole"
"""A new directory that has everything and is on the disk, in the folder of a recovery."""
_JOURNAL = "journal"
_NEEDED = (_JOURNAL, STORE_FILE, f"{STORE_FILE}-wal", HEAD_FILE)
"""Of the old directory; the rest is what was set aside, or made for others."""


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
    if _stage(data_dir) is _Stage.EXCHANGING:
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
            with locked(data_dir):
                _prepare(data_dir, folder)
                data_dir.rename(aside)
                sync_directory(data_dir.parent)
        if stage is not _Stage.EXCHANGED:
            _make_room(data_dir)
            (folder / _WHOLE).rename(data_dir)
            sync_directory(data_dir.parent)
        folder.rmdir()
    return described(data_dir / STORE_FILE)


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
        _check_journal(data_dir)
        with locked(data_dir):
            log = scan(Files(), data_dir / _JOURNAL).state
    name = log.cluster_name or seen.cluster_name
    return evolve(seen, cluster_name=name, position=max(log.last, seen.position, key=_place))


def _check_journal(data_dir: Path) -> None:
    if not (data_dir / _JOURNAL).is_dir():
        raise StorageError(
            f"{data_dir} has a store and no journal, so nobody knows what its log held: "
            f"`distinv backup FILE --data {data_dir}` saves what is in the store, and "
            "`distinv restore` begins with it in another directory. What only the journal held "
            "is lost"
        )


def _place(position: Position) -> tuple[Ballot, int]:
    return position.ballot, position.index


# --- the new directory --------------------------------------------------------------------------


def _prepare(data_dir: Path, folder: Path) -> None:
    """Make the new directory, whole and durable, in `folder`."""
    _check_journal(data_dir)
    if folder.exists():
        shutil.rmtree(folder)  # of an attempt that was interrupted: the old directory is in place
    folder.mkdir()
    copy, made = folder / "copy", folder / "made"
    try:
        _copy_needed(data_dir, copy)
        _apply_everything(copy)
        found(copy / STORE_FILE, made, data_dir.name)
        shutil.rmtree(copy)
        _own_like(data_dir, made)
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    made.rename(folder / _WHOLE)
    sync_directory(folder)
    sync_directory(folder.parent)


def _copy_needed(data_dir: Path, copy: Path) -> None:
    copy.mkdir()
    for name in _NEEDED:
        if (data_dir / name).is_dir():
            shutil.copytree(data_dir / name, copy / name)
        elif (data_dir / name).exists():
            shutil.copy2(data_dir / name, copy / name)


def _own_like(data_dir: Path, made: Path) -> None:
    """Whoever may read it, and whose it is, stays: often another user gives the command."""
    old, store = data_dir.stat(), (data_dir / STORE_FILE).stat()
    for path in (made, *made.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, old.st_uid, old.st_gid)
        like = old if path.is_dir() else store
        path.chmod(stat.S_IMODE(like.st_mode))


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
