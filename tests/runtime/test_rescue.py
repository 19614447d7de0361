"""Backups, and beginning anew from a backup or from what one server has."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from cluster_kit import DEADLINE_S, MemoryCluster, running

from distinv.errors import ConfigError, StorageError
from distinv.inventory.machine import StateMachine
from distinv.runtime.recovery import inspect, recover
from distinv.runtime.rescue import back_up, restore

pytestmark = pytest.mark.anyio


async def sold_some(shop: MemoryCluster) -> str:
    """Three servers with a little history; the digest of their stock."""
    async with running(shop.server(0), shop.server(1), shop.server(2)), shop.client() as till:
        await till.put_item("a")
        await till.receive({"a": 10}, idempotency_key="delivery-1")
        await till.ship({"a": 3})
        return (await till.digest()).value


async def test_a_backup_is_restored_as_a_new_cluster_that_others_join(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    digest = await sold_some(shop)
    saved = back_up(tmp_path / "node-1", tmp_path / "backup.sqlite3")
    assert (saved.cluster_name, saved.digest) == ("shop", digest)
    new = MemoryCluster(tmp_path / "new", expect=1)
    found = restore(tmp_path / "backup.sqlite3", tmp_path / "new" / "node-0")
    assert (found.digest, found.position, found.seq) == (saved.digest, saved.position, saved.seq)
    async with running(new.server(0), new.server(1)) as servers, new.client() as till:
        assert (await till.digest()).value == digest
        again = await till.receive({"a": 10}, idempotency_key="delivery-1")
        assert again.replayed
        await till.ship({"a": 7})
        with anyio.fail_after(DEADLINE_S):
            while servers[1].status().state_digest != servers[0].status().state_digest:
                await anyio.sleep(0.002)
    async with running(new.server(0)), new.client() as till:
        assert await till.available("a") == 0


async def test_a_backup_is_made_while_the_server_runs(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (server,), shop.client() as till:
        await till.put_item("a")
        await till.receive({"a": 1})
        server._engine.machine.flush()
        saved = back_up(tmp_path / "node-0", tmp_path / "backup.sqlite3")
        assert saved.digest == (await till.digest()).value


async def test_one_server_goes_on_alone_with_all_that_it_has(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    digest = await sold_some(shop)
    old = shop.server(2)
    async with old:
        before = old.node_id
    found = recover(tmp_path / "node-2")
    assert found.digest == digest
    assert (tmp_path / "node-2.before-recovery" / "journal").is_dir()
    async with running(shop.server(2)) as (server,), shop.client() as till:
        assert server.node_id != before
        await till.ship({"a": 7})
    with pytest.raises(ConfigError, match=r"before-recovery exists already"):
        recover(tmp_path / "node-2")


async def sold_behind_its_store(shop: MemoryCluster, node: Path) -> str:
    """One server whose store has lost what its journal has; the digest of all of it."""
    async with running(shop.server(0)), shop.client() as till:
        await till.put_item("a")
    early = node.with_name("early")
    shutil.copytree(node, early)
    async with running(shop.server(0)), shop.client() as till:
        await till.receive({"a": 10})
        await till.ship({"a": 3})
        digest = (await till.digest()).value
    shutil.copyfile(early / "store.sqlite3", node / "store.sqlite3")
    shutil.rmtree(early)
    return digest


async def test_what_only_the_log_has_is_kept(tmp_path: Path) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    digest = await sold_behind_its_store(shop, node)
    seen = inspect(node)
    assert (seen.seq, seen.cluster_name) == (1, "shop")
    found = recover(node)
    assert (found.seq, found.digest) == (3, digest)
    assert found.position == seen.position, "what it was judged by is what it has"


async def test_a_store_that_knows_no_voters_yet_is_recovered_by_its_log(tmp_path: Path) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    async with running(shop.server(0)), shop.client() as till:
        await till.put_item("a")
    for file in node.glob("store.sqlite3*"):
        file.unlink()
    StateMachine(str(node / "store.sqlite3")).close()
    assert (inspect(node).cluster_name, inspect(node).seq) == ("shop", 0)
    assert recover(node).seq == 1


async def test_a_store_of_another_story_than_its_log_is_not_recovered(tmp_path: Path) -> None:
    """The log went on in term 1; the store is of a cluster that went another way."""
    one, other = MemoryCluster(tmp_path / "one", expect=1), MemoryCluster(tmp_path / "b", expect=1)
    await sold_behind_its_store(one, tmp_path / "one" / "node-0")
    async with running(other.server(0)), other.client() as till:
        await till.put_item("b")
    node = tmp_path / "one" / "node-0"
    shutil.copyfile(tmp_path / "b" / "node-0" / "store.sqlite3", node / "store.sqlite3")
    before = {path: path.read_bytes() for path in node.rglob("*") if path.is_file()}
    with pytest.raises(StorageError, match="different stories"):
        recover(node)
    assert {path: path.read_bytes() for path in node.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "one" / "node-0.before-recovery").exists()


class Stop(BaseException):
    """The process ends here."""


class Switch:
    """Ends the process, or lets the system refuse, before its n-th change of a directory."""

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.left = 0
        for name in ("rename", "replace", "mkdir", "rmdir", "fsync"):
            patch.setattr(os, name, self._counted(getattr(os, name), error))

    def _counted(self, call: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if threading.current_thread() is threading.main_thread():
                self.left -= 1
                if self.left == 0:
                    raise error
            return call(*arguments, **options)

        return counted


async def refuses_to_begin_anew(shop: MemoryCluster, node: Path) -> None:
    """A server that was started between the two renames began an empty shop there; the next
    recovery said that it was done, and what it advised to move away led to the loss of the rest."""
    with pytest.raises(ConfigError, match=r"was interrupted.*`distinv recover --data .*` again"):
        await shop.server(0).__aenter__()
    assert not node.exists()


@pytest.mark.parametrize(
    "error", [Stop(), OSError(errno.EIO, "Input/output error")], ids=["crash", "refusal"]
)
async def test_a_recovery_is_gone_on_with_wherever_it_stopped(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between its two renames left two directories, and the next one did not go on."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    digest = await sold_behind_its_store(shop, node)
    kept, aside = tmp_path / "kept", tmp_path / "node-0.before-recovery"
    shutil.copytree(node, kept)
    switch, steps, between = Switch(monkeypatch, error), 0, 0
    while True:
        steps += 1
        switch.left = steps
        try:
            recover(node)
        except (Stop, StorageError):
            switch.left = 0
            if not node.exists():
                between += 1
                await refuses_to_begin_anew(shop, node)
            old = aside if aside.exists() else node
            assert (old / "store.sqlite3").read_bytes() == (kept / "store.sqlite3").read_bytes()
            assert inspect(node).cluster_name == "shop"
            found = recover(node)
            assert (found.seq, found.digest) == (3, digest)
            assert aside.is_dir()
            assert not (tmp_path / ".node-0.recovering").exists()
        else:
            fewer, switch.left = switch.left > 0, 0
            assert inspect(node).digest == digest
            if fewer:
                break
        for left in (node, aside, tmp_path / ".node-0.recovering"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(kept, node)
    assert between, "it was stopped between its two renames"


async def interrupted(tmp_path: Path, patch: pytest.MonkeyPatch) -> tuple[MemoryCluster, Path]:
    """A recovery of `node-0` that stopped between its two renames."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    with patch.context() as during:
        rename = Path.rename

        def stopping(self: Path, target: Path) -> Path:
            if self.name == "whole":
                raise Stop
            return rename(self, target)

        during.setattr(Path, "rename", stopping)
        with pytest.raises(Stop):
            recover(node)
    assert not node.exists()
    return shop, node


async def test_a_server_that_began_anew_in_between_is_moved_away_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a release that did not look, or a supervisor that made the directory."""
    shop, node = await interrupted(tmp_path, monkeypatch)
    (node / "journal").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ConfigError, match="stop it, move that directory away"):
            recover(node)
    with pytest.raises(ConfigError, match="was interrupted"):
        await shop.server(0).__aenter__()
    node.rename(tmp_path / "elsewhere")
    assert recover(node).seq == 3


async def test_a_lock_that_was_left_in_between_is_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, node = await interrupted(tmp_path, monkeypatch)
    node.mkdir()
    (node / "lock").touch()
    assert recover(node).seq == 3


async def test_whose_it_is_and_who_may_read_it_stays(tmp_path: Path) -> None:
    """`sudo distinv recover` left a directory of root's that everybody could read."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    owner = 65_534 if os.geteuid() == 0 else os.geteuid()
    if owner != os.geteuid():
        os.chown(node, owner, -1)
    node.chmod(0o700)
    (node / "store.sqlite3").chmod(0o600)
    recover(node)
    for path in (node, *node.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (owner, wanted), path


async def test_what_else_lies_in_the_directory_is_not_needed(tmp_path: Path) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    os.mkfifo(node / "pipe")
    (node / "nowhere").symlink_to("gone")
    assert recover(node).seq == 3
    assert (tmp_path / "node-0.before-recovery" / "pipe").exists()


async def test_a_mount_point_is_told_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    back_up(node, tmp_path / "backup")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    for rescue in (lambda: recover(node), lambda: restore(tmp_path / "backup", tmp_path / "new")):
        with pytest.raises(ConfigError, match=r"is a mount point.*name a directory in it"):
            rescue()
    assert sorted(tmp_path.iterdir()) == before


async def test_without_a_journal_the_way_on_is_named(tmp_path: Path) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    shutil.rmtree(node / "journal")
    for rescue in (inspect, recover):
        with pytest.raises(StorageError, match=r"no journal.*distinv backup.*distinv restore"):
            rescue(node)
    back_up(node, tmp_path / "backup")
    assert restore(tmp_path / "backup", tmp_path / "node-9").seq == 1


async def test_a_backup_takes_no_name_that_somebody_has(tmp_path: Path) -> None:
    """It was written to FILE.part, whosever that was; and a link to nowhere was replaced."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    (tmp_path / "backup.part").write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    assert back_up(node, tmp_path / "backup").path == tmp_path / "backup"
    with pytest.raises(ConfigError, match="link exists already"):
        back_up(node, tmp_path / "link")
    with pytest.raises(ConfigError, match="in the server's own directory"):
        back_up(node, node / "snapshot-monday.sqlite3")
    assert (tmp_path / "backup.part").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"node-0", "backup", "backup.part", "link"}


async def test_a_name_that_is_taken_while_the_backup_is_made_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)

    def no_links(source: Path, target: Path) -> None:
        target.write_text("somebody else's")
        raise OSError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as during:
        during.setattr(os, "link", no_links)
        with pytest.raises(ConfigError, match="backup exists already"):
            back_up(node, tmp_path / "backup")
        during.setattr(os, "link", lambda source, target: no_links(source, tmp_path / "other"))
        back_up(node, tmp_path / "second")
    assert (tmp_path / "backup").read_text() == "somebody else's"
    assert restore(tmp_path / "second", tmp_path / "node-9").seq == 1


async def test_no_backup_is_made_of_a_damaged_store(tmp_path: Path) -> None:
    """It was said to be made, and could not be restored."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    store = node / "store.sqlite3"
    data = bytearray(store.read_bytes())
    data[2 * 4096 + 8 : 2 * 4096 + 40] = b"\xff" * 32
    store.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged, and so would be its backup"):
        back_up(node, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["node-0"]


async def test_what_somebody_else_keeps_beside_it_stays(tmp_path: Path) -> None:
    """A recovery removed the operator's own copy, as it had the name of its own."""
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    back_up(node, tmp_path / "backup")
    own = [tmp_path / f"node-{end}" for end in ("0.copy", "0.recovered", "9.unfinished")]
    for directory in own:
        directory.mkdir()
        (directory / "mine").write_text("keep")
    recover(node)
    restore(tmp_path / "backup", tmp_path / "node-9")
    assert [(directory / "mine").read_text() for directory in own] == ["keep"] * 3
    assert not list(tmp_path.glob(".node*")), "nor is anything of their own left"


async def test_a_half_exchanged_store_is_left_to_the_server(tmp_path: Path) -> None:
    shop, node = MemoryCluster(tmp_path, expect=1), tmp_path / "node-0"
    await sold_behind_its_store(shop, node)
    (node / "store.sqlite3").rename(node / "store.sqlite3-install")
    (node / "store.sqlite3").write_bytes(b"torn")
    for rescue in (lambda: back_up(node, tmp_path / "b"), lambda: recover(node)):
        with pytest.raises(ConfigError, match="start the server once, it goes on with it"):
            rescue()
    async with running(shop.server(0)):
        pass
    assert recover(node).seq == 3


async def test_nothing_is_overwritten_or_made_of_nothing(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)):
        pass
    node, backup = tmp_path / "node-0", tmp_path / "backup"
    back_up(node, backup)
    with pytest.raises(ConfigError, match="backup exists already"):
        back_up(node, backup)
    with pytest.raises(ConfigError, match="no server's data directory"):
        back_up(tmp_path, tmp_path / "another")
    with pytest.raises(ConfigError, match="not empty"):
        restore(backup, node)
    with pytest.raises(ConfigError, match="there is no backup"):
        restore(tmp_path / "nowhere", tmp_path / "node-9")
    with pytest.raises(ConfigError, match="no server's data directory"):
        recover(tmp_path / "node-9")
    backup.write_bytes(backup.read_bytes()[: 20 << 10])
    with pytest.raises(StorageError):
        restore(backup, tmp_path / "node-9")
    assert not (tmp_path / "node-9").exists()


async def test_a_server_that_runs_is_not_recovered(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)):
        with pytest.raises(StorageError, match="in use"):
            recover(tmp_path / "node-0")
