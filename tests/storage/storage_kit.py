"""What the storage tests share: logs to write, and file systems that misbehave on command."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from attrs import define, field

from distinv.entry import ORIGIN, Ballot, Entry, Position, Voter, VoterSet, make_entry
from distinv.storage.api import (
    BirthRecord,
    EntryRecord,
    IdentityRecord,
    PromiseRecord,
    Record,
    Recovered,
)
from distinv.storage.files import Files
from distinv.storage.format import SECTOR_BYTES
from distinv.storage.journal import Journal

SMALL_SEGMENT = 8 * SECTOR_BYTES

IDENTITY = IdentityRecord(7, "shop")
BALLOT = Ballot(3, 7)
PROMISE = PromiseRecord(BALLOT)
BIRTH = BirthRecord(VoterSet("shop", 99, (Voter(7, "north"), Voter(8, "süd"))), (5, 6))


class QuickFiles(Files):
    """A disk on which nothing needs to be synced: these tests crash processes, not machines."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_data(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


@define(eq=False)
class CrashingFiles(QuickFiles):
    """Once armed, the next commit writes only those of its sectors that `survives` picks."""

    survives: Callable[[int], bool] | None = None
    """Is told the place of a sector in its write."""
    sectors_lost: int = 0
    sectors_kept: int = 0

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        if self.survives is None or offset < SECTOR_BYTES or not any(data):
            super().write(descriptor, data, offset)
            return
        self.sectors_lost = self.sectors_kept = 0
        for part in range(len(data) // SECTOR_BYTES):
            if self.survives(part):
                start = part * SECTOR_BYTES
                super().write(descriptor, data[start : start + SECTOR_BYTES], offset + start)
                self.sectors_kept += 1
            else:
                self.sectors_lost += 1
        raise OSError(errno.EIO, "crashed while writing")


@define(eq=False)
class FailingFiles(QuickFiles):
    """Operations named in `failing` raise an OSError with that number; all are noted in `calls`."""

    failing: dict[str, int] = field(factory=dict)
    calls: list[tuple[str, object]] = field(factory=list)

    def _call(self, name: str, what: object) -> None:
        self.calls.append((name, what))
        if name in self.failing:
            number = self.failing[name]
            raise OSError(number, errno.errorcode[number])

    def write(self, descriptor: int, data: bytes, offset: int) -> None:
        self._call("write", descriptor)
        super().write(descriptor, data, offset)

    def write_zeros(self, descriptor: int, offset: int, end: int) -> None:
        self._call("write_zeros", descriptor)
        super().write_zeros(descriptor, offset, end)

    def sync(self, descriptor: int) -> None:
        self._call("sync", descriptor)

    def sync_data(self, descriptor: int) -> None:
        self._call("sync_data", descriptor)

    def sync_directory(self, path: Path) -> None:
        self._call("sync_directory", path)

    def replace(self, source: Path, target: Path) -> None:
        self._call("replace", target)
        super().replace(source, target)


def log(*payloads: bytes, after: Position = ORIGIN, ballot: Ballot = BALLOT) -> list[Entry]:
    """Entries that continue the log at `after`, one per payload."""
    entries: list[Entry] = []
    for payload in payloads:
        entries.append(make_entry(after, ballot, after.index * 10, 2, payload))
        after = entries[-1].position
    return entries


def records(entries: Sequence[Entry]) -> list[Record]:
    return [EntryRecord(entry) for entry in entries]


def journal(path: Path, files: Files | None = None, segment_bytes: int = SMALL_SEGMENT) -> Journal:
    return Journal(path, segment_bytes=segment_bytes, files=files or QuickFiles())


def reopened(path: Path, segment_bytes: int = SMALL_SEGMENT) -> tuple[Journal, Recovered]:
    """A journal that goes on in `path`, and what was there."""
    storage = journal(path, segment_bytes=segment_bytes)
    return storage, storage.recover()


class Contents(NamedTuple):
    """All that was recovered, but for how the last end came about."""

    node: int | None
    cluster_name: str | None
    promised: Ballot
    entries: list[Entry]
    birth: BirthRecord


def contents(recovered: Recovered) -> Contents:
    return Contents(
        recovered.node,
        recovered.cluster_name,
        recovered.promised,
        list(recovered.entries),
        recovered.birth,
    )


def look(path: Path) -> tuple[Contents, bool]:
    """What a journal holds, and whether its end is torn."""
    storage, recovered = reopened(path)
    try:
        return contents(recovered), recovered.torn
    finally:
        storage.close()
