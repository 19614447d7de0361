"""What the storage tests share: journals, and file systems that misbehave on command."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from distinv.storage.api import Recovered
from distinv.storage.files import Files
from distinv.storage.format import SECTOR_BYTES
from distinv.storage.journal import Journal
from distinv.testing.conformance.written import Contents, contents_of

SMALL_SEGMENT = 8 * SECTOR_BYTES


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
class KeepingFiles(CrashingFiles):
    """Segments are never removed: a test does that afterwards, up to where it crashes."""

    removed: list[Path] = field(factory=list)

    def remove(self, path: Path) -> None:
        if path.suffix == ".segment":
            self.removed.append(path)
        else:
            super().remove(path)


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

    def remove(self, path: Path) -> None:
        if path.suffix == ".segment":
            self._call("remove", path)
        super().remove(path)


def journal(path: Path, files: Files | None = None, segment_bytes: int = SMALL_SEGMENT) -> Journal:
    return Journal(path, segment_bytes=segment_bytes, files=files or QuickFiles())


def reopened(path: Path, segment_bytes: int = SMALL_SEGMENT) -> tuple[Journal, Recovered]:
    """A journal that goes on in `path`, and what was there."""
    storage = journal(path, segment_bytes=segment_bytes)
    return storage, storage.recover()


def segment_names(path: Path) -> list[int]:
    """The numbers of the segment files in a data directory."""
    return [int(file.stem) for file in sorted((path / "journal").glob("*.segment"))]


def look(path: Path) -> tuple[Contents, bool]:
    """What a journal holds, and whether its end is torn."""
    storage, recovered = reopened(path)
    try:
        return contents_of(recovered), recovered.torn
    finally:
        storage.close()
