"""Datagrams between transports of one process: no sockets, nothing lost but by a full queue.

A `MemoryNetwork` is a whole network with any number of transports. Its methods are factories::

    network = MemoryNetwork()
    Cluster("shop", transport=network.open_transport, discovery=network.open_discovery, …)

It belongs to one event loop and is not thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import anyio
import anyio.lowlevel

from distinv.config import Limits, Network
from distinv.discovery.api import DiscoveryContext
from distinv.errors import ConfigError
from distinv.transport.api import Address, Datagram, TransportContext

BROADCAST = "255.255.255.255"
"""What is sent here, on the beacon port, is heard by everybody that listens."""

_LIMITS = Limits()


class MemoryNetwork:
    """Which transport has which address, and who listens to broadcasts."""

    def __init__(self) -> None:
        self._transports: dict[Address, MemoryTransport] = {}
        self._listeners: dict[int, Callable[[Datagram], None]] = {}
        self._listener_count = 0
        self.lost = 0
        """Datagrams that had no receiver, or met a full queue."""

    async def open_transport(self, context: TransportContext) -> MemoryTransport:
        """A `TransportFactory`. Raises ConfigError when an explicitly given port is in use."""
        network = context.network
        address = (network.host, network.port)
        wanted = network.port > 0 and (context.server or network.port_explicit)
        if not wanted or (address in self._transports and not network.port_explicit):
            address = self._free(network.host)
        if address in self._transports:
            raise ConfigError(f"port {address[1]} of {address[0]} is in use")
        transport = MemoryTransport(self, address, network)
        self._transports[address] = transport
        return transport

    async def open_discovery(self, context: DiscoveryContext) -> MemoryDiscovery:
        """A `DiscoveryFactory`: everybody in this network hears every announcement."""
        return MemoryDiscovery(self, context)

    def _free(self, host: str) -> Address:
        port = 49_152
        while (host, port) in self._transports:
            port += 1
        return (host, port)

    def _carry(self, source: Address, target: Address, data: bytes) -> None:
        if target[0] == BROADCAST:
            for deliver in tuple(self._listeners.values()):
                deliver((data, source))
            return
        transport = self._transports.get(target)
        if transport is None or not transport._accept((data, source)):
            self.lost += 1


class MemoryTransport:
    """One address of a `MemoryNetwork`. The same contract as a socket's."""

    def __init__(self, network: MemoryNetwork, address: Address, settings: Network) -> None:
        self._network = network
        self._address = address
        self._settings = settings
        self._queue: deque[Datagram] = deque()
        self._arrived = anyio.Event()
        self._closed = False

    @property
    def address(self) -> Address:
        return self._address

    @property
    def payload_bytes(self) -> int:
        return self._settings.payload_loopback_bytes

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        for target, data in datagrams:
            self._network._carry(self._address, target, data)

    async def receive(self) -> list[Datagram]:
        """See `Transport.receive`. Raises anyio.ClosedResourceError after `aclose`."""
        await anyio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._queue:
                count = min(len(self._queue), _LIMITS.turn_datagrams)
                return [self._queue.popleft() for _ in range(count)]
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def probe(self, address: Address) -> bool:
        await anyio.lowlevel.checkpoint()
        return address not in self._network._transports

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            del self._network._transports[self._address]
            self._arrived.set()
        await anyio.lowlevel.checkpoint()

    def _accept(self, datagram: Datagram) -> bool:
        if len(self._queue) >= _LIMITS.inbox_datagrams:
            return False
        self._queue.append(datagram)
        self._arrived.set()
        return True


class MemoryDiscovery:
    """Announcements within a `MemoryNetwork`, or the servers that were given."""

    def __init__(self, network: MemoryNetwork, context: DiscoveryContext) -> None:
        self._network = network
        self._context = context

    def targets(self) -> Sequence[Address]:
        if self._context.servers:
            return tuple(self._context.servers)
        return ((BROADCAST, self._context.network.beacon_port),)

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        if not self._context.server:
            return
        network = self._network
        network._listener_count += 1
        number = network._listener_count
        network._listeners[number] = deliver
        try:
            await anyio.sleep_forever()
        finally:
            del network._listeners[number]

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
