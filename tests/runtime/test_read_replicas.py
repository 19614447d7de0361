"""Servers without a vote: what they serve, and when they step in for a voter."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from attrs import evolve
from cluster_kit import MemoryCluster, eventually, leader_of, with_timing

from distinv import Cluster, Config, Unavailable
from distinv.testing.cluster import MemoryCluster as InMemory
from distinv.testing.cluster import quick
from distinv.transport.api import Address
from distinv.transport.memory import MemoryNetwork

pytestmark = pytest.mark.anyio


class NarrowNetwork(MemoryNetwork):
    """Clients reach some servers only."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: tuple[Address, ...] = ()
        self.reachable: tuple[Address, ...] = ()

    def _carry(self, source: Address, target: Address, data: bytes) -> None:
        hidden = {*self.servers} - {*self.reachable}
        outside = {source, target} - {*self.servers}
        if outside and not hidden.isdisjoint((source, target)):
            self.lost += 1
        else:
            super()._carry(source, target, data)


class NarrowCluster(MemoryCluster):
    """Three voters, and replicas that clients can be kept to."""

    network: NarrowNetwork

    def __init__(self, directory: Path, config: Config) -> None:
        super().__init__(directory, expect=1, config=config)
        self.network = NarrowNetwork()
        self._settings["transport"] = self.network.open_transport
        self._settings["discovery"] = self.network.open_discovery

    def keep_clients_to(self, servers: list[Cluster], reachable: Cluster) -> None:
        self.network.servers = tuple(server.address for server in servers)
        self.network.reachable = (reachable.address,)


def brisk(**timing: int) -> Config:
    config = with_timing(quick(), autopilot_us=10_000, promote_after_us=30_000, **timing)
    return evolve(config, limits=evolve(config.limits, voters_max=3))


def voters_of(leader: Cluster) -> set[str]:
    return {each.name for each in leader.status().servers if each.votes}


async def grown(shop: NarrowCluster, stack: AsyncExitStack, count: int) -> list[Cluster]:
    """The first three vote."""
    servers = []
    for number in range(count):
        servers.append(await stack.enter_async_context(shop.server(number)))
        await servers[-1].ready()
        if number == 2:
            await eventually(lambda: len(voters_of(leader_of(servers))) == 3)
    return servers


async def test_a_replica_serves_reads_that_see_what_was_acknowledged(tmp_path: Path) -> None:
    shop = NarrowCluster(tmp_path, brisk())
    async with AsyncExitStack() as stack:
        servers = await grown(shop, stack, 4)
        leader, replica = leader_of(servers), servers[3]
        shop.keep_clients_to(servers, leader)
        writer = await stack.enter_async_context(shop.client("writer"))
        await writer.put_item("a")
        shop.keep_clients_to(servers, replica)
        reader = await stack.enter_async_context(shop.client("reader", servers=at(replica)))
        for stock in range(1, 20):
            shop.keep_clients_to(servers, leader)
            await writer.receive({"a": 1})
            shop.keep_clients_to(servers, replica)
            assert await reader.available("a") == stock
            assert await reader.available("a", read="local") == stock
        assert replica.status().role == "learner"


def at(server: Cluster) -> list[Address]:
    return [server.address]


async def test_a_replica_takes_no_command(tmp_path: Path) -> None:
    shop = NarrowCluster(tmp_path, brisk(client_deadline_us=400_000))
    async with AsyncExitStack() as stack:
        servers = await grown(shop, stack, 4)
        shop.keep_clients_to(servers, servers[3])
        client = await stack.enter_async_context(shop.client(servers=at(servers[3])))
        with pytest.raises(Unavailable):
            await client.put_item("a")


async def test_a_replica_steps_in_for_a_voter_that_is_gone() -> None:
    shop = InMemory(4, config=brisk(evict_after_us=200_000))
    async with shop, shop.client() as inventory:
        await inventory.put_item("a")
        leader = await shop.leader()
        first = voters_of(leader.cluster)
        assert len(first) == 3
        gone = next(each for each in await shop.followers() if each.name in first)
        await shop.stop(gone)
        expected = {each.name for each in shop.servers if each is not gone}
        await eventually(lambda: voters_of(leader.cluster) == expected)
        await inventory.receive({"a": 1})
        await shop.start(gone)
        await shop.converged()
        assert voters_of(leader.cluster) == expected
        assert gone.cluster.status().role == "learner"
