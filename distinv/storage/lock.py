"""One server per data directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distinv.errors import StorageError

LOCK_FILE = "lock"


def lock_directory(directory: Path) -> int:
    """Lock `directory` until the returned descriptor is closed or this process ends.

    Raises StorageError, naming the process, when another one holds it; OSError.
    """
    path = directory / LOCK_FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        raise _in_use(directory, descriptor) from error
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _in_use(directory: Path, descriptor: int) -> StorageError:
    holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
    os.close(descriptor)
    return StorageError(
        f"{directory} is in use by a running server (pid {holder}). Stop it first, or give"
        " this server a data directory of its own."
    )


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Raises what `lock_directory` does."""
    descriptor = lock_directory(directory)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def looked_at(directory: Path) -> Iterator[None]:
    """As `locked`, for who only reads: nothing is written, the disk may be read-only."""
    try:
        descriptor = os.open(directory / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no server has ever run here
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _in_use(directory, descriptor) from error
    except OSError:
        os.close(descriptor)
        raise
    try:
        yield
    finally:
        os.close(descriptor)
