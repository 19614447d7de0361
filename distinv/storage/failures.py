"""What the storage says when it cannot go on: which file, what happened, what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from distinv.errors import CorruptLog, StorageError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def corrupt(path: Path, offset: int, what: str) -> CorruptLog:
    """The error for damage at byte `offset` of `path`."""
    return CorruptLog(
        f"{path}, byte {offset}: {what}. The server must not vote with a damaged log, so it has"
        " stopped. Keep the file. If the other servers of the cluster run, move this data"
        " directory away and start with an empty one: it joins as a new server and copies"
        " everything. Without them, restore the directory from a backup."
    )


def disk_failure(path: Path, error: OSError) -> StorageError:
    """The error for an operation on `path` that the system refused."""
    reason = error.strerror or str(error)
    if error.errno in DISK_FULL:
        return StorageError(
            f"{path}: the disk is full ({reason}). Nothing acknowledged is lost; the server has"
            " stopped. Free some space, then start it again."
        )
    return StorageError(
        f"{path}: the system refused ({reason}). What was acknowledged before stands; the server"
        " has stopped and trusts nothing it wrote since. Check the disk and the permissions,"
        " then start it again: it verifies everything it finds."
    )
