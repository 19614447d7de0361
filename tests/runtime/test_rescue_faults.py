"""Backups, restorations and recoveries that meet something: a server, a full disk, damage."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cluster_kit import MemoryCluster, running

from distinv.errors import ConfigError, StorageError
from distinv.inventory import snapshot
from distinv.runtime import rescue as module
from distinv.runtime.recovery import inspect, recover
from distinv.runtime.rescue import back_up, restore
from distinv.storage.api import Recovered
from distinv.storage.files import Files
from distinv.storage.journal import Journal
from distinv.storage.lock import lock_directory

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is tested is what lies on the disk: one event loop is enough."""
    return "asyncio"


@pytest.fixture
async def node(anyio_backend: str, tmp_path: Path) -> Path:
    """What a stopped server has left, up to seq 2."""
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)), shop.client() as till:
        await till.put_item("a")
        await till.receive({"a": 10})
    return tmp_path / "node-0"


class Stop(BaseException):
    """The process ends here."""


def at_rename(patch: pytest.MonkeyPatch, name: str, do: Callable[[], None]) -> pytest.MonkeyPatch:
    """`do` happens before the directory `name` is renamed."""
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if self.name == name:
            do()
        return rename(self, target)

    patch.setattr(Path, "rename", renamed)


def stop() -> None:
    raise Stop


def interrupt(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery that stops between its two renames."""
    with monkeypatch.context() as during:
        at_rename(during, "whole", stop)
        with pytest.raises(Stop):
            recover(node)


# --- a server, meanwhile ------------------------------------------------------------------------


async def test_a_server_that_was_about_to_lock_its_directory_looks_again(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had looked before the recovery began; then it began an empty shop."""
    recovered, begun = Journal.recover, list[Path]()

    def meanwhile(self: Journal) -> Recovered:
        if self.data_dir == node and not begun:
            begun.append(node)
            with pytest.raises(Stop):
                recover(node)
        return recovered(self)

    with monkeypatch.context() as during:
        at_rename(during, "whole", stop)
        during.setattr(Journal, "recover", meanwhile)
        with pytest.raises(ConfigError, match="was interrupted"):
            await MemoryCluster(node.parent, expect=1).server(0).__aenter__()
    assert begun
    assert not (node / "store.sqlite3").exists(), "nothing was begun"
    with pytest.raises(ConfigError, match="move that directory away"):
        recover(node)
    node.rename(node.parent / "elsewhere")
    assert recover(node).seq == 2


@pytest.mark.parametrize("goes_on", [False, True])
def test_the_old_directory_is_locked_until_the_new_one_is_in_place(
    goes_on: bool, node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that had opened its lock just before got it, and made an empty directory."""
    if goes_on:
        interrupt(node, monkeypatch)
    refused = list[str]()

    def another() -> None:
        with pytest.raises(StorageError, match="is in use") as found:
            lock_directory(node.with_name("node-0.before-recovery"))
        refused.append(str(found.value))

    at_rename(monkeypatch, "whole", another)
    assert recover(node).seq == 2
    assert len(refused) == 1


def test_nothing_is_restored_where_a_recovery_was_interrupted(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(node, tmp_path / "backup")
    interrupt(node, monkeypatch)
    for rescue in (
        lambda: restore(tmp_path / "backup", node),
        lambda: back_up(node, tmp_path / "another"),
    ):
        with pytest.raises(ConfigError, match="was interrupted"):
            rescue()
    assert recover(node).seq == 2


def test_a_store_that_is_exchanged_meanwhile_is_copied_again(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, copied = node / "store.sqlite3", list[int]()

    def meanwhile(*arguments: Any) -> snapshot.SnapshotFile:
        made = snapshot.write_snapshot(*arguments)
        copied.append(store.stat().st_ino)
        if len(copied) == 1:
            shutil.copy(store, tmp_path / "new")
            (tmp_path / "new").replace(store)
        return made

    monkeypatch.setattr(module, "write_snapshot", meanwhile)
    assert back_up(node, tmp_path / "backup").seq == 2
    assert len(copied) == 2
    assert copied[0] != copied[1]


async def test_to_look_at_a_directory_changes_nothing(node: Path, tmp_path: Path) -> None:
    """It took the lock, which a read-only disk does not give."""

    def everything() -> dict[Path, tuple[int, bytes]]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before = everything()
    assert inspect(node).seq == 2
    assert everything() == before
    (node / "lock").unlink()
    assert inspect(node).seq == 2
    assert not (node / "lock").exists()
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)):
        with pytest.raises(StorageError, match=r"in use by a running server \(pid \d+\)"):
            inspect(node)


# --- what the system refuses ----------------------------------------------------------------------


def test_what_cannot_be_renamed_leaves_nothing_behind(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a directory of the same file system that is mounted there: nothing tells it before."""

    def busy() -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    at_rename(monkeypatch, "node-0", busy)
    with pytest.raises(ConfigError, match=r"mount point.*name a directory in it"):
        recover(node)
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


def test_a_full_disk_is_not_told_as_a_server_would(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ "The server has stopped, start it again", said commands that had no server."""
    back_up(node, tmp_path / "backup")
    before = sorted(tmp_path.iterdir())

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Files, "write_zeros", full)
    for rescue in (lambda: recover(node), lambda: restore(tmp_path / "backup", tmp_path / "new")):
        with pytest.raises(StorageError, match=r"disk is full.*give the command again") as told:
            rescue()
        assert "server" not in str(told.value)
    assert sorted(tmp_path.iterdir()) == before


def test_a_copy_that_does_not_fit_is_named(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that was read was blamed, or all of them in a list."""

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StorageError, match=r"recovering/copy/.*: the disk is full \(No space"):
        recover(node)
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


def test_a_backup_that_does_not_fit_is_told_and_removed(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def small(path: Any, **options: Any) -> sqlite3.Connection:
        database = connect(path, **options)
        if not options.get("uri"):
            database.execute("PRAGMA max_page_count = 1")
        return database

    monkeypatch.setattr(snapshot.sqlite3, "connect", small)
    with pytest.raises(StorageError, match=r"backup: the disk is full.*give the command again"):
        back_up(node, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


def test_a_backup_whose_name_the_disk_refuses_is_none(
    node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(StorageError, match="Input/output error"):
        back_up(node, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


# --- whose it is ----------------------------------------------------------------------------------


def test_nothing_is_more_open_than_it_was(node: Path) -> None:
    """The journal was as open as the store afterwards."""
    node.chmod(0o750)
    (node / "store.sqlite3").chmod(0o640)
    (node / "journal").chmod(0o700)
    recover(node)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (node, *node.rglob("*"))}
    assert modes["node-0"] == 0o750
    assert modes["journal"] == 0o700
    assert modes["store.sqlite3"] == 0o640
    assert modes["0000000001.segment"] == 0o600
    assert modes["lock"] == 0o600


def test_an_empty_directory_keeps_its_owner_and_its_mode(node: Path, tmp_path: Path) -> None:
    back_up(node, tmp_path / "backup")
    target = tmp_path / "new"
    target.mkdir(0o700)
    owner = 65_534 if os.geteuid() == 0 else os.geteuid()
    os.chown(target, owner, -1)
    restore(tmp_path / "backup", target)
    assert target.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_uid for path in (target, *target.rglob("*"))} == {owner}


# --- damage ---------------------------------------------------------------------------------------


def test_a_store_whose_ledger_does_not_add_up_has_no_backup(node: Path, tmp_path: Path) -> None:
    """A restoration found it, months after the backup."""
    with closing(sqlite3.connect(node / "store.sqlite3")) as database:
        database.execute("DELETE FROM ledger WHERE seq = 2")
        database.commit()
    with pytest.raises(StorageError, match="is damaged, and so would be its backup"):
        back_up(node, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


def test_a_damaged_store_is_named_where_it_lies(node: Path, tmp_path: Path) -> None:
    """And not in the copy of it, which is gone."""
    with closing(sqlite3.connect(node / "store.sqlite3")) as database:
        database.execute("DELETE FROM ledger WHERE seq = 2")
        database.commit()
    with pytest.raises(StorageError, match=f"{node}/store.sqlite3 is damaged"):
        recover(node)
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


def empty(node: Path) -> None:
    for path in (node / "journal").iterdir():
        path.unlink()


def spoil(node: Path) -> None:
    path = node / "journal" / "0000000001.segment"
    data = bytearray(path.read_bytes())
    data[600:604] = b"XXXX"
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [empty, spoil])
def test_without_a_sound_journal_the_way_on_is_named(
    damage: Callable[[Path], None], node: Path, tmp_path: Path
) -> None:
    damage(node)
    for rescue in (inspect, recover):
        with pytest.raises(StorageError, match=r"distinv backup.*distinv restore.* is lost"):
            rescue(node)
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]
    back_up(node, tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "node-9").seq == 2
