"""Clusters for the tests of this folder: several servers in one process and one event loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from attrs import evolve

from distinv import Cluster, Config, InventoryClient, Timing
from distinv.testing.cluster import quick
from distinv.transport.memory import MemoryNetwork

DEADLINE_S = 30
"""For a machine that does other things as well; nothing here takes a second by itself."""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def config_of_its_own() -> Config:
    """Nobody else announces on this beacon port."""
    config = quick()
    return evolve(config, network=evolve(config.network, beacon_port=free_port()))


def with_timing(config: Config, **changes: int) -> Config:
    timing: Timing = evolve(config.timing, **changes)
    return evolve(config, timing=timing)


class MemoryCluster:
    """Servers and clients on one `MemoryNetwork`."""

    def __init__(self, directory: Path, expect: int = 3, **settings: Any) -> None:
        self.network = MemoryNetwork()
        self._directory = directory
        self._settings = {
            "config": quick(),
            "expect": expect,
            "transport": self.network.open_transport,
            "discovery": self.network.open_discovery,
            **settings,
        }

    def server(self, number: int, **settings: Any) -> Cluster:
        return Cluster(
            "shop",
            data_dir=self._directory / f"node-{number}",
            **{**self._settings, **settings},
        )

    def client(self, name: str = "till", **settings: Any) -> InventoryClient:
        return InventoryClient(
            "shop",
            name=name,
            transport=self.network.open_transport,
            discovery=self.network.open_discovery,
            **{"config": self._settings["config"], **settings},
        )


@asynccontextmanager
async def running(*servers: Cluster) -> AsyncIterator[list[Cluster]]:
    """All servers entered and ready."""
    async with AsyncExitStack() as stack:
        entered = [await stack.enter_async_context(server) for server in servers]
        with anyio.fail_after(DEADLINE_S):
            for server in entered:
                await server.ready()
            yield entered


async def eventually(condition: Callable[[], bool]) -> None:
    """Look until it holds. Time passes by itself here: nothing is assumed about how much."""
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.002)


def leader_of(servers: list[Cluster]) -> Cluster:
    (leader,) = (server for server in servers if server.is_leader)
    return leader


def followers_of(servers: list[Cluster]) -> Iterator[Cluster]:
    return (server for server in servers if not server.is_leader)
