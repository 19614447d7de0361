"""A real server and real clients in one process, on a network that can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from attrs import evolve

from distinv.client.client import InventoryClient
from distinv.config import MILLISECOND, Config, lan
from distinv.runtime.cluster import Cluster
from distinv.transport.api import Address, Datagram, Transport, TransportContext
from distinv.transport.memory import MemoryNetwork


class Gate:
    """A client's transport: nothing passes while it is closed."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.closed = False
        self.left = False

    @property
    def address(self) -> Address:
        return self._inner.address

    @property
    def payload_bytes(self) -> int:
        return self._inner.payload_bytes

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        if not self.closed:
            self._inner.send(datagrams)

    async def receive(self) -> list[Datagram]:
        while True:
            batch = await self._inner.receive()
            if not self.closed:
                return batch

    async def probe(self, address: Address) -> bool:
        return not self.closed and await self._inner.probe(address)

    async def aclose(self) -> None:
        self.left = True
        await self._inner.aclose()


class Shop:
    """One network, on which servers and clients of the cluster "shop" meet."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.gates: list[Gate] = []
        timing = evolve(
            lan().timing,
            client_denied_us=5 * MILLISECOND,
            discovery_window_us=5 * MILLISECOND,
            beacon_unjoined_us=5 * MILLISECOND,
            watchdog_us=5 * MILLISECOND,
        )
        self.config: Config = evolve(lan(), timing=timing)

    @asynccontextmanager
    async def server(self, **settings: Any) -> AsyncIterator[Cluster]:
        cluster = Cluster(
            "shop",
            data_dir="unused",
            expect=1,
            storage="memory",
            transport=self.network.open_transport,
            discovery=self.network.open_discovery,
            config=self.config,
            **settings,
        )
        async with cluster:
            await cluster.ready()
            yield cluster

    async def _open_gate(self, context: TransportContext) -> Gate:
        self.gates.append(Gate(await self.network.open_transport(context)))
        return self.gates[-1]

    def client(self, **settings: Any) -> InventoryClient:
        return InventoryClient(
            "shop",
            **{
                "transport": self._open_gate,
                "discovery": self.network.open_discovery,
                "config": self.config,
                **settings,
            },
        )

    @property
    def gate(self) -> Gate:
        """The gate of the client that was entered last."""
        return self.gates[-1]
