"""Reading entries back by their places, from any thread, beside a running commit.

Files are opened for each call: a commit never touches what lies before it, but that segments below
a base are unlinked, and no descriptor outlives its segment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

from attrs import frozen

from distinv.entry import Entry
from distinv.storage.failures import corrupt, disk_failure
from distinv.storage.files import Files
from distinv.storage.format import (
    SECTOR_BYTES,
    DamagedError,
    decode_entry,
    extract,
    sectors_spanned,
)
from distinv.storage.index import Places
from distinv.storage.segments import segment_path

_GAP_BYTES = 64 << 10
"""Reading this much for nothing costs about as much as another system call and a seek."""


def read_entries(files: Files, directory: Path, first: int, places: Places) -> list[Entry]:
    """The entries at `places`, the first of which has index `first`.

    Raises CorruptLog when one is not what was written, StorageError when it cannot be read.
    """
    entries: list[Entry] = []
    start = 0
    while start < len(places):
        stop = _end_of_run(places, start)
        entries += _read_run(files, directory, first + start, places.part(start, stop))
        start = stop
    return entries


def _end_of_run(places: Places, start: int) -> int:
    """Up to where the entries lie in one file, one close behind the other."""
    at = start + 1
    while at < len(places) and places.segment(at) == places.segment(start):
        end_of_previous = places.place(at - 1) + places.size_bytes(at - 1)
        if places.place(at) > end_of_previous + _GAP_BYTES:
            break
        at += 1
    return at


def _read_run(files: Files, directory: Path, first: int, places: Places) -> list[Entry]:
    path = segment_path(directory, places.segment(0))
    final = len(places) - 1
    start, _ = sectors_spanned(places.place(0), places.size_bytes(0))
    _, stop = sectors_spanned(places.place(final), places.size_bytes(final))
    origin = start * SECTOR_BYTES
    try:
        descriptor = files.open(path, os.O_RDONLY)
        try:
            data = files.read(descriptor, stop * SECTOR_BYTES - origin, origin)
        finally:
            files.close(descriptor)
    except OSError as error:
        raise disk_failure(path, error) from error
    entries = []
    for at in range(len(places)):
        place = places.place(at)
        try:
            record = extract(data, place - origin, places.size_bytes(at))
            entries.append(decode_entry(record, first + at))
        except DamagedError as error:
            raise corrupt(path, place, str(error)) from error
    return entries


@frozen(eq=False)
class StoredEntries(Sequence[Entry]):
    """The log as it was when recovered, read from disk as it is looked at.

    Later commits do not change it, but for a base: what it forgets goes from the disk, and looking
    at it raises StorageError. Every look may raise that, or CorruptLog.
    """

    _files: Files
    _directory: Path
    _first: int
    _places: Places
    _step_bytes: int

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step == 1:
                return self._read(start, stop)
            return [self[position] for position in range(start, stop, step)]
        position = range(len(self))[at]
        return self._read(position, position + 1)[0]

    def __iter__(self) -> Iterator[Entry]:
        start = 0
        while start < len(self):
            stop = self._places.within(start, len(self), self._step_bytes)
            yield from self._read(start, stop)
            start = stop

    def _read(self, start: int, stop: int) -> list[Entry]:
        places = self._places.part(start, stop)
        return read_entries(self._files, self._directory, self._first + start, places)
