"""Backups, and beginning anew from a backup or from what one server has."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from cluster_kit import DEADLINE_S, MemoryCluster, running

from distinv.errors import ConfigError, StorageError
from distinv.runtime.rescue import back_up, recover, restore

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
