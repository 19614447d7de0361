"""Clusters that grow and shrink while they serve, and servers that come back after a long time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from cluster_kit import DEADLINE_S, MemoryCluster, eventually, leader_of, running, with_timing

from distinv import Cluster, Config, InventoryClient
from distinv.errors import InvalidRequest, NoLeader
from distinv.testing.cluster import quick

pytestmark = pytest.mark.anyio


def brisk(**limits: int) -> Config:
    config = with_timing(
        quick(), autopilot_us=10_000, promote_after_us=30_000, compact_us=20_000, order_us=500_000
    )
    return evolve(config, limits=evolve(config.limits, **limits))


def voters_of(server: Cluster) -> int:
    return sum(each.role in ("leader", "follower") for each in server.status().servers)


async def digests(servers: list[Cluster], inventory: InventoryClient) -> set[str]:
    await inventory.put_item("last")
    seq = (await inventory.digest()).seq
    await eventually(lambda: all(server.status().seq >= seq for server in servers))
    return {server.status().state_digest for server in servers}


@contextmanager
def within() -> Iterator[None]:
    with anyio.fail_after(DEADLINE_S):
        yield


async def test_a_cluster_grows_and_shrinks(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, config=brisk())
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(shop.server(0, expect=1))]
        inventory = await stack.enter_async_context(shop.client())
        await inventory.put_item("a")
        for voters in (3, 5, 5):
            for _ in range(2):
                servers.append(await stack.enter_async_context(shop.server(len(servers))))
            await eventually(lambda: len(leader_of(servers).status().servers) == len(servers))
            await eventually(lambda: voters_of(leader_of(servers)) == voters)  # noqa: B023
            await inventory.receive({"a": 1})
        assert len(servers) == 7
        with within():
            for _ in range(4):
                await servers.pop(0).leave()
                await inventory.receive({"a": 1})
        await eventually(lambda: voters_of(leader_of(servers)) == 3)
        assert await inventory.available("a") == 7
        assert len(await digests(servers, inventory)) == 1


async def test_the_last_server_cannot_leave(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1, config=brisk())
    async with running(shop.server(0)) as (server,), shop.client() as inventory:
        with within(), pytest.raises(InvalidRequest, match="nobody else could vote"):
            await server.leave()
        await inventory.put_item("a")
        assert server.is_leader


async def test_nobody_leaves_without_a_leader(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, config=brisk())
    async with running(shop.server(0), shop.server(1), shop.server(2)) as servers:
        for server in servers[1:]:
            await server.stop()
        with pytest.raises(NoLeader, match="keeps its vote"):
            await servers[0].leave(timeout=0.3)


@pytest.mark.parametrize("storage", ["journal", "memory"])
async def test_a_server_that_was_away_for_long_returns_by_a_snapshot(
    tmp_path: Path, storage: str
) -> None:
    shop = MemoryCluster(tmp_path, config=brisk(log_keep_entries=5), storage=storage)
    async with shop.server(0), shop.server(1) as second, shop.client() as inventory:
        async with running(shop.server(2)):
            await inventory.put_item("a")
        for _ in range(40):
            await inventory.receive({"a": 1})
        await eventually(lambda: second._engine.node.log.base.index > 30)
        async with running(shop.server(2)) as (third,):
            assert len(await digests([second, third], inventory)) == 1
            assert third._engine.node.log.base.index > 30
        async with running(shop.server(2)) as (third,):
            assert len(await digests([second, third], inventory)) == 1
