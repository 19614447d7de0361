"""The few file operations the journal is made of, in one place, so that tests can make them fail.

Every method raises OSError and nothing else. Nothing here retries: a failed sync stays failed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_sync_data = getattr(os, "fdatasync", os.fsync)  # a system without the former has the latter

_ZEROS = bytes(1 << 20)


class Files:
    """The real file system."""

    def make_directory(self, path: Path) -> None:
        """Make `path` and what it needs, durably."""
        if not path.parent.exists():
            self.make_directory(path.parent)
        path.mkdir(exist_ok=True)
        self.sync_directory(path)
        with suppress(PermissionError):  # somebody else's: then it was there before
            self.sync_directory(path.parent)

    def open(self, path: Path, flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`."""
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], offset + written)

    def write_zeros(self, descriptor: int, offset: int, end: int) -> None:
        """Fill `offset..end` with zeros that take up room on the disk."""
        while offset < end:
            size = min(len(_ZEROS), end - offset)
            self.write(descriptor, _ZEROS[:size], offset)
            offset += size

    def read(self, descriptor: int, size_bytes: int, offset: int) -> bytes:
        """`size_bytes` from `offset` on; fewer only at the end of the file."""
        pieces = []
        while size_bytes > 0:
            piece = os.pread(descriptor, size_bytes, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            size_bytes -= len(piece)
        return b"".join(pieces)

    def sync_data(self, descriptor: int) -> None:
        """Make the content durable; the file's size was made durable before."""
        _sync_data(descriptor)

    def sync(self, descriptor: int) -> None:
        """Make content and size durable."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read_durable(self, path: Path) -> bytes:
        """All of a file, as the disk has it.

        What a killed process left in the page cache is made durable before anybody builds on it;
        then the cache is dropped, as after a failed sync it may hold what the disk does not
        (Rebello et al., ATC 2020).
        """
        descriptor = self.open(path, os.O_RDONLY)
        try:
            self.sync(descriptor)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return self.read(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            self.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file that may be gone already."""
        path.unlink(missing_ok=True)

    def names(self, path: Path) -> list[str]:
        return sorted(os.listdir(path))
