"""Segment files: their names, and how one is made before it is needed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from attrs import define

from distinv.storage.files import Files
from distinv.storage.format import SECTOR_BYTES, encode_file_head

_NAME = re.compile(r"(\d{10})\.segment")
_UNFINISHED = "next.unfinished"
SEGMENT_BYTES_MAX = 1 << 32
"""A place within a segment takes 32 bits of the index."""


@define
class Segment:
    """A segment open for writing."""

    number: int
    path: Path
    descriptor: int
    size_bytes: int
    sector: int = 1
    """Where the next write goes; the file's head has sector 0."""

    @property
    def sectors_left(self) -> int:
        return self.size_bytes // SECTOR_BYTES - self.sector

    @property
    def is_half_used(self) -> bool:
        return 2 * self.sector * SECTOR_BYTES >= self.size_bytes


def segment_path(directory: Path, number: int) -> Path:
    return directory / f"{number:010d}.segment"


def segment_numbers(files: Files, directory: Path) -> list[int]:
    """The segments in `directory`, the oldest first."""
    matches = (_NAME.fullmatch(name) for name in files.names(directory))
    return sorted(int(match[1]) for match in matches if match)


def open_segment(files: Files, directory: Path, number: int, sector: int) -> Segment:
    """Open an existing segment, to go on at `sector`."""
    path = segment_path(directory, number)
    descriptor = files.open(path, os.O_RDWR)
    return Segment(number, path, descriptor, os.fstat(descriptor).st_size, sector)


def prepare_segment(files: Files, directory: Path, number: int, size_bytes: int) -> Segment:
    """Make segment `number` with real zeros, durably, in place of an unused one of that number.

    It gets its name only when it is whole, so every segment file has its head and its full size.
    Raises OSError and leaves nothing behind.
    """
    path, unfinished = segment_path(directory, number), directory / _UNFINISHED
    descriptor = files.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        files.write(descriptor, encode_file_head(number, size_bytes), 0)
        files.write_zeros(descriptor, SECTOR_BYTES, size_bytes)
        files.sync(descriptor)
        files.replace(unfinished, path)
        files.sync_directory(directory)
    except BaseException:
        files.close(descriptor)
        remove_unfinished(files, directory)
        raise
    return Segment(number, path, descriptor, size_bytes)


def drop_segments(files: Files, directory: Path, numbers: range) -> None:
    """Unlink these segments, the oldest first, each durably before the next.

    So no crash leaves a gap between those that are left. Raises OSError.
    """
    for number in numbers:
        files.remove(segment_path(directory, number))
        files.sync_directory(directory)


def remove_unfinished(files: Files, directory: Path) -> None:
    """Remove what a crash left of a segment in the making."""
    files.remove(directory / _UNFINISHED)
