"""Two clusters of one name meet: one without client commands gives way to the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from cluster_kit import DEADLINE_S, eventually, with_timing

from distinv import Cluster, Config, InventoryClient
from distinv.core.birth import odd_voters
from distinv.testing.cluster import PORT, CutNetwork, MemoryCluster, quick
from distinv.transport.api import Address

pytestmark = pytest.mark.anyio

NORTH = tuple((f"127.0.1.{number}", PORT) for number in (1, 2, 3))
SOUTH = tuple((f"127.0.2.{number}", PORT) for number in (1, 2, 3))


def brisk() -> Config:
    return with_timing(
        quick(),
        autopilot_us=10_000,
        promote_after_us=30_000,
        beacon_us=100_000,
        beacon_unjoined_us=20_000,
    )


class Town:
    """Two groups of servers that do not hear each other until they are let."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.network = CutNetwork()
        self.network.cut(*SOUTH)
        self.directory = directory
        self._settings = {
            "config": brisk(),
            "transport": self.network.open_transport,
            "discovery": self.network.open_discovery,
            "servers": (*NORTH, *SOUTH),
            "expect": 3,
            **settings,
        }

    def server(self, address: Address, **settings: Any) -> Cluster:
        return Cluster(
            "shop",
            data_dir=self.directory_of(address),
            bind="{}:{}".format(*address),
            **{**self._settings, **settings},
        )

    def client(self, **settings: Any) -> InventoryClient:
        """It lives in the part of the town that is not cut off at the moment."""
        same = ("config", "transport", "discovery", "servers")
        given = {key: self._settings[key] for key in same} | settings
        return InventoryClient("shop", name="till", **given)

    def directory_of(self, address: Address) -> Path:
        return self.directory / "-".join(address[0].split(".")[2:])

    def let_meet(self) -> None:
        self.network.heal()

    def separate(self, *addresses: Address) -> None:
        """These from all the others."""
        self.network.heal()
        self.network.cut(*addresses)


@asynccontextmanager
async def two_clusters(town: Town) -> AsyncIterator[tuple[list[Cluster], list[Cluster]]]:
    """Both born, and each with a leader."""
    async with AsyncExitStack() as stack:
        groups = []
        for addresses in (NORTH, SOUTH):
            groups.append([town.server(address) for address in addresses])
            for server in groups[-1]:
                await stack.enter_async_context(server)
        with anyio.fail_after(DEADLINE_S):
            for server in (*groups[0], *groups[1]):
                await server.ready()
        assert len({cluster_of(server) for server in groups[0]}) == 1
        assert cluster_of(groups[0][0]) != cluster_of(groups[1][0])
        yield groups[0], groups[1]


def cluster_of(server: Cluster) -> int:
    return server.status().cluster_id


def are_one(servers: list[Cluster], cluster_id: int) -> bool:
    """All belong to that cluster, have the same log, and as many vote as can."""
    statuses = [server.status() for server in servers]
    leaders = [status for status in statuses if status.role == "leader"]
    return (
        {status.cluster_id for status in statuses} == {cluster_id}
        and len({(status.applied, status.last_index) for status in statuses}) == 1
        and len(leaders) == 1
        and sum(each.votes for each in leaders[0].servers) == odd_voters(len(servers), 5)
    )


def alarmed(caplog: pytest.LogCaptureFixture) -> set[str]:
    """The servers that have said that there is another cluster."""
    return {
        line.split(":")[0] for line in caplog.messages if "another cluster is also named" in line
    }


@pytest.mark.parametrize("storage", ["journal", "memory"])
async def test_the_untouched_one_gives_way(tmp_path: Path, storage: str) -> None:
    town = Town(tmp_path, storage=storage)
    async with two_clusters(town) as (north, south), town.client() as inventory:
        await inventory.put_item("MUG")
        await inventory.receive({"MUG": 3})
        stays, goes = cluster_of(north[0]), cluster_of(south[0])
        old = {server.node_id for server in south}
        town.let_meet()
        everybody = [*north, *south]
        await eventually(lambda: are_one(everybody, stays))
        assert old.isdisjoint({server.node_id for server in south})
        await inventory.ship({"MUG": 1})
        assert await inventory.available("MUG") == 2
    kept = tmp_path / "2-1" / f"dissolved-{goes:016x}"
    assert (kept / "store.sqlite3").exists() is (storage == "journal")


async def test_of_two_untouched_ones_the_lower_id_stays(tmp_path: Path) -> None:
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south):
        stays = min(cluster_of(north[0]), cluster_of(south[0]))
        town.let_meet()
        await eventually(lambda: are_one([*north, *south], stays))


async def test_two_touched_ones_stay_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south):
        for part, others in ((SOUTH, 1), (NORTH, 2)):
            town.separate(*part)
            async with town.client() as inventory:
                await inventory.put_item("MUG")
                await inventory.receive({"MUG": others})
        ids = {server.server_name: cluster_of(server) for server in (*north, *south)}
        town.let_meet()
        await eventually(lambda: alarmed(caplog) == set(ids))
        for part, units in ((NORTH, 1), (SOUTH, 2)):
            async with town.client(servers=part) as inventory:
                assert await inventory.available("MUG") == units
        assert {server.server_name: cluster_of(server) for server in (*north, *south)} == ids
    assert not [line for line in caplog.messages if "dissol" in line]


@asynccontextmanager
async def at_work(town: Town, *addresses: Address) -> AsyncIterator[list[Cluster]]:
    """Servers that start with what they have on disk."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(town.server(each)) for each in addresses]


async def test_a_straggler_is_told_when_it_comes_back(tmp_path: Path) -> None:
    """It was away when its cluster dissolved, and all others have been restarted since: they
    remember."""
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south), town.client() as inventory:
        await inventory.put_item("MUG")
        stays, goes = cluster_of(north[0]), cluster_of(south[0])
        away, old = SOUTH[0], south[0].node_id
    town.let_meet()
    others = (*NORTH, *SOUTH[1:])
    async with at_work(town, *others) as servers:
        await eventually(lambda: are_one(servers, stays))
    async with at_work(town, *others) as servers, town.server(away) as back:
        assert (cluster_of(back), back.node_id) == (goes, old)
        await eventually(lambda: are_one([*servers, back], stays))
        assert back.node_id != old
    assert (town.directory_of(away) / f"dissolved-{goes:016x}" / "store.sqlite3").exists()
    async with at_work(town, *NORTH, *SOUTH) as servers:
        await eventually(lambda: are_one(servers, stays))


async def test_one_server_alone_gives_way(tmp_path: Path) -> None:
    town = Town(tmp_path, expect=1)
    async with at_work(town, NORTH[0], SOUTH[0]) as servers, town.client() as inventory:
        await eventually(lambda: all(server.is_leader for server in servers))
        await inventory.put_item("MUG")
        stays = cluster_of(servers[0])
        town.let_meet()
        await eventually(lambda: are_one(servers, stays))


async def test_whoever_waits_is_served_by_the_cluster_that_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For `Cluster.ready` and `Cluster.serve` one server goes on, and its observers are told."""
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south), anyio.create_task_group() as group:
        async with town.client() as inventory:
            await inventory.put_item("MUG")
        ended: list[str] = []

        async def serve(server: Cluster) -> None:
            await server.serve()
            ended.append(server.server_name)

        for server in south:
            group.start_soon(serve, server)
        stays = cluster_of(north[0])
        with caplog.at_level(logging.INFO, "distinv"):
            town.let_meet()
            await eventually(lambda: are_one([*north, *south], stays))
        with anyio.fail_after(DEADLINE_S):
            for server in south:
                await server.ready()
        assert ended == []
        for server in south:
            line = f"{server.server_name}: cluster {{}} is dissolved: this server sets aside"
            assert any(each.startswith(line.split("{}")[0]) for each in caplog.messages)
        group.cancel_scope.cancel()


async def test_a_till_that_only_looked_goes_along(tmp_path: Path) -> None:
    """Reading touches nothing. Its servers are another cluster's now, and it finds that."""
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south):
        async with town.client() as inventory:
            await inventory.put_item("MUG")
            await inventory.receive({"MUG": 3})
        town.separate(*NORTH)
        async with town.client(servers=SOUTH) as looking:
            assert (await looking.digest()).seq == 0
            stays = cluster_of(north[0])
            town.let_meet()
            await eventually(lambda: are_one([*north, *south], stays))
            with anyio.fail_after(DEADLINE_S):
                assert await looking.available("MUG") == 3
                await looking.ship({"MUG": 1})


async def test_a_till_that_is_about_to_write_writes_to_one_of_the_two(tmp_path: Path) -> None:
    """While its cluster dissolves: it is refused there, and waits for the other one."""
    town = Town(tmp_path)
    async with two_clusters(town) as (north, south):
        async with town.client() as inventory:
            await inventory.put_item("MUG")
        town.separate(*NORTH)
        async with town.client(servers=SOUTH) as looking:
            assert (await looking.digest()).seq == 0
            stays = cluster_of(north[0])
            leader = next(server for server in south if server.is_leader)
            dissolving = leader._engine.node.log
            town.let_meet()
            await eventually(lambda: dissolving.dissolved is not None)
            await looking.receive({"MUG": 5}, timeout=DEADLINE_S)
            await eventually(lambda: are_one([*north, *south], stays))
            assert await looking.available("MUG") == 5


async def test_a_memory_cluster_of_the_testing_kit_dissolves() -> None:
    network = CutNetwork()
    network.cut(*[(f"127.0.0.{number}", PORT) for number in (4, 5, 6)])
    town = MemoryCluster(6, network=network, expect=3, config=brisk())
    async with town, town.client() as inventory:
        await inventory.put_item("MUG")
        network.heal()
        servers = [server.cluster for server in town.servers]
        stays = cluster_of(servers[0])
        await eventually(lambda: are_one(servers, stays))
        moved = town.servers[5]
        node = moved.cluster.node_id
        await town.restart(moved)
        assert moved.cluster.node_id == node
        await eventually(lambda: are_one([each.cluster for each in town.servers], stays))
