"""Servers and clients over real sockets on this machine's loopback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from cluster_kit import (
    config_of_its_own,
    eventually,
    followers_of,
    free_port,
    leader_of,
    running,
)

from distinv import (
    Cluster,
    Config,
    FaultSettings,
    InsufficientStock,
    InventoryClient,
    NoServer,
    PermissionDenied,
    Unavailable,
    new_key,
)

pytestmark = pytest.mark.anyio


class LoopbackCluster:
    """Servers that find each other by beacons nobody else listens to."""

    def __init__(self, directory: Path, expect: int = 3, **settings: Any) -> None:
        self._directory = directory
        self.config: Config = settings.pop("config", None) or config_of_its_own()
        self._common = {"config": self.config, **settings}
        self._expect = expect

    def server(self, number: int, **settings: Any) -> Cluster:
        return Cluster(
            "shop",
            **{
                "data_dir": self._directory / f"node-{number}",
                "expect": self._expect,
                "bind": "127.0.0.1:0",
                **self._common,
                **settings,
            },
        )

    def client(self, name: str = "till", **settings: Any) -> InventoryClient:
        return InventoryClient("shop", name=name, **{**self._common, **settings})


async def sell_until_refused(inventory: InventoryClient, callers: int) -> list[int]:
    """All callers want the same ten units; returns the seqs of those who got one."""
    sold: list[int] = []

    async def call() -> None:
        while True:
            try:
                sold.append((await inventory.purchase({"a": 1})).seq)
            except InsufficientStock:
                return

    async with anyio.create_task_group() as group:
        for _ in range(callers):
            group.start_soon(call)
    return sold


async def test_sealed_servers_survive_their_leader(tmp_path: Path) -> None:
    shop = LoopbackCluster(tmp_path, key=new_key())
    async with running(*(shop.server(number) for number in range(3))) as servers:
        async with shop.client() as inventory:
            await inventory.put_item("a")
            await inventory.receive({"a": 10})
            await leader_of(servers).stop()
            sold = await sell_until_refused(inventory, callers=4)
            assert len(sold) == len(set(sold)) == 10
            assert (await inventory.level("a")).on_hand == 0
        assert len({server.leader for server in servers} - {None}) == 1


async def test_static_servers_over_a_bad_network(tmp_path: Path) -> None:
    config = config_of_its_own()
    network = evolve(config.network, faults=FaultSettings(loss=0.1, duplicate=0.05, seed=3))
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    shop = LoopbackCluster(
        tmp_path,
        config=evolve(config, network=network),
        transport="faulty",
        servers=addresses,
    )
    async with running(
        *(
            shop.server(number, bind=address, election="ring")
            for number, address in enumerate(addresses)
        )
    ) as servers:
        assert [server.address[1] for server in servers] == [
            int(address.rpartition(":")[2]) for address in addresses
        ]
        async with shop.client() as inventory:
            await inventory.put_item("a")
            await inventory.receive({"a": 10})
            assert len(await sell_until_refused(inventory, callers=3)) == 10


async def test_a_wrong_key_is_named_on_both_sides(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = LoopbackCluster(tmp_path, expect=1, key=new_key())
    with caplog.at_level(logging.WARNING, "distinv"):
        async with running(shop.server(0)):
            async with shop.client(key=new_key()) as stranger:
                with pytest.raises(PermissionDenied, match="has another cluster key"):
                    await stranger.put_item("a")
            async with shop.client() as friend:
                await friend.put_item("a")
    assert any("it has the key" in record.getMessage() for record in caplog.records)


async def test_no_server_is_found(tmp_path: Path) -> None:
    shop = LoopbackCluster(tmp_path)
    async with shop.client(timeout=0.5) as inventory:
        with pytest.raises(NoServer, match="No server of the cluster 'shop' answers"):
            await inventory.put_item("a")
        with pytest.raises(NoServer):
            await inventory.level("a")


async def test_without_a_quorum_nothing_is_taken(tmp_path: Path) -> None:
    shop = LoopbackCluster(tmp_path)
    async with running(*(shop.server(number) for number in range(3))) as servers:
        async with shop.client() as inventory:
            await inventory.put_item("a")
        last, *others = followers_of(servers)
        await eventually(lambda: last.status().seq == 1)
        for server in (*others, leader_of(servers)):
            await server.stop()
        await eventually(lambda: last.leader is None)
        async with shop.client() as inventory:
            with pytest.raises(Unavailable):
                await inventory.receive({"a": 1}, timeout=1)
            assert (await inventory.get_item("a", read="local")).sku == "a"
