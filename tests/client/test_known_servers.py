"""The live list that an application sees: `InventoryClient.servers`."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from client_shop import Shop

from distinv.client.client import InventoryClient
from distinv.client.servers import Server
from distinv.client.status import KnownServer, known_servers
from distinv.entry import NodeId
from distinv.testing.cluster import MemoryCluster

pytestmark = pytest.mark.anyio

PATIENCE_S = 60


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not holds():
            await anyio.sleep(0.005)


def named(inventory: InventoryClient) -> dict[str, KnownServer]:
    return {each.name: each for each in inventory.servers}


async def test_a_client_is_told_of_a_death_and_a_return() -> None:
    async with MemoryCluster() as cluster, cluster.client() as inventory:
        await inventory.put_item("a")
        leader = await cluster.leader()
        (dies, _) = await cluster.followers()
        await until(lambda: len(named(inventory)) == 3)
        assert [each.votes for each in inventory.servers] == [True] * 3
        assert sorted(each.role for each in inventory.servers) == ["follower", "follower", "leader"]
        home = named(inventory)[leader.name]
        assert (home.home, home.role, home.reachable) == (True, "leader", True)
        assert home.address == leader.address
        assert not named(inventory)[dies.name].home
        await cluster.crash(dies)
        await until(lambda: not named(inventory)[dies.name].reachable)
        assert named(inventory)[dies.name].votes
        await cluster.restart(dies)
        await until(lambda: named(inventory)[dies.name].role == "follower")
        assert [each.no_quorum_us for each in inventory.servers] == [0, 0, 0]


async def test_before_anybody_answered_none_is_known() -> None:
    async with Shop().client() as inventory:
        assert inventory.servers == ()


async def test_the_time_without_a_leader_goes_on() -> None:
    alone = Server(NodeId(2), "b", ("10.0.0.2", 4747), alone_since=400)
    found = known_servers([alone, Server(NodeId(1), "a", role="unreachable", lag=7)], None, 1_000)
    assert found == (
        KnownServer(1, "a", None, "unreachable", None, 7, 0, reachable=False, home=False),
        KnownServer(2, "b", ("10.0.0.2", 4747), "", None, None, 600, reachable=True, home=False),
    )
