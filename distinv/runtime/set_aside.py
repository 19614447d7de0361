"""The data directories of dissolved clusters: set aside inside the server's own, and never deleted.

`dissolved-<cluster id>/` holds everything that the server had of that cluster, its journal with the
last entry included, and a file `successor` that names the cluster which goes on. A crash on the way
leaves `dissolving-<cluster id>/`: then the move is decided, nothing new was begun, and whoever
opens the directory next finishes the move first. Without such a folder nothing was moved.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from distinv.inventory.file import sync_directory, sync_file
from distinv.server.dissolving import Dissolved
from distinv.storage.failures import disk_failure
from distinv.storage.lock import LOCK_FILE, locked

_BEGUN = re.compile(r"dissolving-([0-9a-f]{16})")
_DONE = re.compile(r"dissolved-([0-9a-f]{16})(-\d+)?")
_SUCCESSOR = "successor"

ASIDE = "dissolved-*"
"""What a copy of a server's data directory may leave out."""


def set_aside(data_dir: Path, dissolved: Dissolved) -> None:
    """Put away all that `data_dir` holds; it is blank then. Nobody may have it open.

    Raises StorageError.
    """
    if not data_dir.is_dir():
        return
    folder = data_dir / f"dissolving-{dissolved.cluster_id:016x}"
    try:
        with locked(data_dir):
            folder.mkdir(exist_ok=True)
            successor = folder / _SUCCESSOR
            successor.write_text(f"{dissolved.successor:016x}\n", "ascii")
            sync_file(successor)
            sync_directory(folder)
            sync_directory(data_dir)
            _finish(data_dir)
    except OSError as error:
        raise disk_failure(data_dir, error) from error


def is_unfinished(data_dir: Path) -> bool:
    """A crash came while the directory was set aside; `finish` goes on with it."""
    try:
        return any(_BEGUN.fullmatch(name) for name in os.listdir(data_dir))
    except OSError:
        return False  # whoever opens it finds out why


def finish(data_dir: Path) -> None:
    """Go on with what a crash interrupted. Raises StorageError."""
    try:
        with locked(data_dir):
            _finish(data_dir)
    except OSError as error:
        raise disk_failure(data_dir, error) from error


def _finish(data_dir: Path) -> None:
    for name in sorted(os.listdir(data_dir)):
        begun = _BEGUN.fullmatch(name)
        if begun is not None:
            _move_all(data_dir, data_dir / name)
            (data_dir / name).rename(_free_name(data_dir, begun[1]))
            sync_directory(data_dir)


def _move_all(data_dir: Path, folder: Path) -> None:
    for name in sorted(os.listdir(data_dir)):
        if name != LOCK_FILE and not _BEGUN.fullmatch(name) and not _DONE.fullmatch(name):
            (data_dir / name).rename(folder / name)
    sync_directory(folder)
    sync_directory(data_dir)


def _free_name(data_dir: Path, cluster: str) -> Path:
    """A directory that was restored from a copy may dissolve once more."""
    path, count = data_dir / f"dissolved-{cluster}", 1
    while path.exists():
        count += 1
        path = data_dir / f"dissolved-{cluster}-{count}"
    return path


def remembered(data_dir: Path) -> tuple[Dissolved, ...]:
    """The clusters that `data_dir` has belonged to and that are dissolved, oldest first."""
    try:
        names = os.listdir(data_dir)
        found = [(match, data_dir / match[0]) for match in map(_DONE.fullmatch, names) if match]
        found.sort(key=lambda each: (each[1].stat().st_mtime_ns, each[1].name))
    except OSError:
        return ()
    return tuple([Dissolved(int(match[1], 16), _successor_in(path)) for match, path in found])


def _successor_in(folder: Path) -> int:
    """0 when it was not written any more, or cannot be read."""
    try:
        return int((folder / _SUCCESSOR).read_text("ascii"), 16) & ((1 << 63) - 1)
    except (OSError, ValueError):
        return 0
