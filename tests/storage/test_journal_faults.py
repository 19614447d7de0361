"""Full disks, failing syncs, a second server, foreign formats: the journal stops and says why."""

from __future__ import annotations

import errno
import os
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_kit import SMALL_SEGMENT, FailingFiles, journal, look, reopened

from distinv.errors import CorruptLog, StorageError
from distinv.storage.files import Files
from distinv.storage.journal import Journal
from distinv.testing.conformance.written import IDENTITY, PROMISE, log_of, records_of


def refuses_everything(storage: Journal) -> bool:
    with pytest.raises(StorageError):
        storage.commit([PROMISE])
    with pytest.raises(StorageError):
        storage.commit([])
    with pytest.raises(StorageError):
        storage.read(1, 1, 100)
    return True


@pytest.mark.parametrize("operation", ["write", "sync_data"])
def test_a_failed_commit_is_never_tried_again(operation: str, tmp_path: Path) -> None:
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    first = log_of(b"a")
    storage.commit([IDENTITY, *records_of(first)])
    files.failing[operation] = errno.EIO
    with pytest.raises(StorageError, match="the system refused"):
        storage.commit([PROMISE])
    files.failing.clear()
    files.calls.clear()
    assert refuses_everything(storage)
    assert files.calls == [], "the disk is left alone"
    storage.close()
    found, _ = look(tmp_path)
    assert list(found.entries) == first, "what was acknowledged is there"


def test_an_unwritable_record_stops_the_journal(tmp_path: Path) -> None:
    """A number that has no place in the format is a bug of the caller: stop before the disk."""
    storage = journal(tmp_path)
    storage.recover()
    storage.commit([IDENTITY])
    with pytest.raises(StorageError, match="cut off"):
        storage.commit([PROMISE, type(PROMISE)(type(PROMISE.ballot)(-1, 0))])
    assert refuses_everything(storage)
    storage.close()
    assert look(tmp_path)[0].node == IDENTITY.node


def test_every_commit_is_synced_before_it_returns(tmp_path: Path) -> None:
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    for entry in log_of(*(b"x" * 1_000 for _ in range(12))):
        files.calls.clear()
        storage.commit(records_of([entry]))
        calls = list(files.calls)
        (synced,) = (what for name, what in calls if name == "sync_data")
        on_segment = [name for name, what in calls if what == synced]
        assert on_segment[-2:] == ["write", "sync_data"]
    storage.close()


def test_a_segment_is_whole_and_has_its_name_before_it_is_used(tmp_path: Path) -> None:
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    for entry in log_of(*(b"x" * 1_000 for _ in range(12))):
        storage.commit(records_of([entry]))
    storage.close()
    steps: dict[object, str] = {}
    latest: object = None
    for name, what in files.calls:
        if name == "write_zeros":
            latest = what
            steps[latest] = name
        elif name in ("sync", "replace", "sync_directory") and latest is not None:
            steps[latest] += f" {name}"
        elif name == "sync_data":
            assert steps[what] == "write_zeros sync replace sync_directory"
    names = [name for name, _ in files.calls]
    assert names.count("sync_data") == 12
    assert names.count("write_zeros") > 4


def test_what_is_found_is_made_durable_before_anybody_builds_on_it(tmp_path: Path) -> None:
    """A killed process may have left its last write in the page cache only."""
    storage, _ = reopened(tmp_path)
    storage.commit([IDENTITY, PROMISE])
    storage.close()
    for operation in ("sync", "sync_directory"):
        files = FailingFiles(failing={operation: errno.EIO})
        with pytest.raises(StorageError, match="the system refused"):
            journal(tmp_path, files).recover()
    assert look(tmp_path)[0].node == IDENTITY.node


# --- a full disk ------------------------------------------------------------------------------


def fill(storage: Journal, number: int) -> tuple[int, str]:
    """Commit up to `number` entries; how many were acknowledged, and what was said then."""
    entries = log_of(*(b"x" * 1_000 for _ in range(number)))
    for done, entry in enumerate(entries):
        try:
            storage.commit(records_of([entry]))
        except StorageError as error:
            return done, str(error)
    return number, ""


def test_a_full_disk_is_noticed_before_anything_is_acknowledged(tmp_path: Path) -> None:
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    files.failing["write_zeros"] = errno.ENOSPC
    acknowledged, why = fill(storage, 20)
    assert 0 < acknowledged < 20
    assert "the disk is full" in why
    assert refuses_everything(storage)
    storage.close()
    assert sorted(os.listdir(tmp_path / "journal")) == ["0000000001.segment"]
    storage, recovered = reopened(tmp_path)
    assert len(recovered.entries) == acknowledged
    assert not recovered.torn
    rest = log_of(*(b"y" * 1_000 for _ in range(9)), after=recovered.entries[-1].position)
    for entry in rest:
        storage.commit(records_of([entry]))
    storage.close()
    assert list(look(tmp_path)[0].entries[acknowledged:]) == rest


class FullOnce(FailingFiles):
    """A disk that is full for one file, then has room again."""

    def write_zeros(self, descriptor: int, offset: int, end: int) -> None:
        try:
            super().write_zeros(descriptor, offset, end)
        finally:
            self.failing.pop("write_zeros", None)


def test_room_made_in_time_is_enough(tmp_path: Path) -> None:
    """Preparing a segment ahead failed, but when it is needed there is room: nothing stops."""
    files = FullOnce()
    storage = journal(tmp_path, files)
    storage.recover()
    files.failing["write_zeros"] = errno.ENOSPC
    assert fill(storage, 20) == (20, "")
    assert "write_zeros" not in files.failing
    storage.close()
    assert len(look(tmp_path)[0].entries) == 20


def test_a_failed_sync_of_a_segment_in_the_making_is_not_tried_again(tmp_path: Path) -> None:
    files = FailingFiles()
    storage = journal(tmp_path, files)
    storage.recover()
    files.failing["sync"] = errno.EIO
    acknowledged, why = fill(storage, 20)
    assert 0 < acknowledged < 20
    assert "the system refused" in why
    assert [name for name, _ in files.calls].count("sync") == 2, "one segment made, one not"
    assert refuses_everything(storage)
    storage.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tiny file system takes root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_is_really_full(tiny_disk: Path) -> None:
    segment_bytes = 4 * SMALL_SEGMENT
    storage = journal(tiny_disk, Files(), segment_bytes)
    storage.recover()
    acknowledged, why = fill(storage, 500)
    assert 20 < acknowledged < 500
    assert "the disk is full" in why
    assert refuses_everything(storage)
    storage.close()
    storage = journal(tiny_disk, Files(), segment_bytes)
    assert len(storage.recover().entries) == acknowledged, "it can be read while it is full"
    storage.close()
    subprocess.run(["mount", "-o", "remount,size=4m", str(tiny_disk)], check=True)
    storage = journal(tiny_disk, Files(), segment_bytes)
    entries = storage.recover().entries
    more = log_of(*(b"y" * 1_000 for _ in range(50)), after=entries[-1].position)
    for entry in more:
        storage.commit(records_of([entry]))
    storage.close()
    assert len(look(tiny_disk)[0].entries) == acknowledged + 50


# --- who may use a directory ------------------------------------------------------------------


def test_a_directory_has_one_server(tmp_path: Path) -> None:
    storage = journal(tmp_path)
    storage.recover()
    storage.commit([IDENTITY])
    second = journal(tmp_path)
    with pytest.raises(StorageError, match=rf"in use by a running server \(pid {os.getpid()}\)"):
        second.recover()
    second.close()
    storage.commit([PROMISE])
    storage.close()
    assert second.recover().node == IDENTITY.node
    second.close()


def test_the_lock_goes_when_recovery_fails(tmp_path: Path) -> None:
    storage = journal(tmp_path)
    storage.recover()
    storage.close()
    segment = tmp_path / "journal" / "0000000001.segment"
    head = segment.read_bytes()
    segment.write_bytes(b"?" + head[1:])
    damaged = journal(tmp_path)
    with pytest.raises(CorruptLog):
        damaged.recover()
    segment.write_bytes(head)
    reopened(tmp_path)[0].close()


def test_another_format_is_named_with_the_way_forward(tmp_path: Path) -> None:
    storage = journal(tmp_path)
    storage.recover()
    storage.commit([IDENTITY])
    storage.close()
    segment = tmp_path / "journal" / "0000000001.segment"
    data = segment.read_bytes()
    head = data[:8] + (3).to_bytes(4, "big")
    segment.write_bytes(head + zlib.crc32(head).to_bytes(4, "big") + data[16:])
    with pytest.raises(StorageError, match="has format 3, this program reads 1 to 2") as caught:
        reopened(tmp_path)
    assert not isinstance(caught.value, CorruptLog)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        reopened(tmp_path / "file" / "data")
    with pytest.raises(StorageError, match="file"):
        reopened(tmp_path / "file")


def test_missing_directories_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    storage, _ = reopened(path)
    storage.commit([IDENTITY])
    storage.close()
    assert look(path)[0][0] == IDENTITY.node


def test_a_segment_half_made_is_swept_away(tmp_path: Path) -> None:
    storage, _ = reopened(tmp_path)
    storage.commit([IDENTITY])
    storage.close()
    unfinished = tmp_path / "journal" / "next.unfinished"
    unfinished.write_bytes(b"\0" * 100)
    assert look(tmp_path)[0].node == IDENTITY.node
    assert not unfinished.exists()
