"""`MemoryCluster`: whole servers in the event loop of a test, without sockets, threads or files.

    async with MemoryCluster() as cluster, cluster.client() as inventory:
        await inventory.receive({"MUG": 10})
        await cluster.crash(await cluster.leader())
        await inventory.ship({"MUG": 1})            # what now?

Everything is the real thing but for the network, the disks and, if one likes, the clock. What a
server has committed survives its crash, in a storage in memory that is kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import evolve

from distinv import config as presets
from distinv.client.client import InventoryClient
from distinv.config import Config, FaultSettings
from distinv.entry import NodeId
from distinv.runtime.cluster import Cluster
from distinv.storage.api import StorageContext
from distinv.storage.memory import MemoryStorage
from distinv.testing.clock import loop_time
from distinv.transport.api import Address, TransportFactory
from distinv.transport.faulty import faulty
from distinv.transport.memory import MemoryNetwork
from distinv.wire.messages import StatusReply

PORT = 4747
PATIENCE_S = 60
"""Longer than anything takes after the last fault; under a clock that jumps it costs nothing."""
_GLANCE_S = 0.005
"""How often a condition is looked at."""


def quick() -> Config:
    """Less patience than a real network asks for.

    All servers share an event loop: when it stands still, it does so for all of them, and nobody
    suspects anybody.
    """
    found = presets.test()
    timing = evolve(
        found.timing,
        heartbeat_us=25_000,
        suspect_floor_us=125_000,
        watchdog_us=250_000,
        quorum_us=300_000,
        discovery_window_us=50_000,
        transfer_us=150_000,
    )
    return evolve(found, timing=timing)


class CutNetwork(MemoryNetwork):
    """A `MemoryNetwork` whose cables can be pulled."""

    def __init__(self) -> None:
        super().__init__()
        self._sides: dict[Address, int] = {}
        self._cuts = 0

    def cut(self, *addresses: Address) -> None:
        """These still hear each other, and nobody else hears or reaches them."""
        self._cuts += 1
        self._sides.update(dict.fromkeys(addresses, self._cuts))

    def heal(self, *addresses: Address) -> None:
        """Mend what was cut at these, or everywhere."""
        for address in addresses or tuple(self._sides):
            self._sides.pop(address, None)

    def connects(self, one: Address, other: Address) -> bool:
        """Whether there is no cut between the two."""
        return self._sides.get(one, 0) == self._sides.get(other, 0)

    def _carry(self, source: Address, target: Address, data: bytes) -> None:
        if self.connects(source, target):
            super()._carry(source, target, data)
        else:
            self.lost += 1


class KeptStorage(MemoryStorage):
    """A storage that outlives its server, and waits for nothing."""

    in_memory = True

    gone = False
    """Its cluster has dissolved."""

    def set_aside(self) -> None:
        self.gone = True


class MemoryServer:
    """One server of a `MemoryCluster`, which may be running or not."""

    def __init__(
        self, name: str, address: Address, make: Callable[[MemoryServer], Cluster]
    ) -> None:
        self.name = name
        self.address = address
        self.failure: Exception | None = None
        """Why it stopped by itself, if it did."""
        self._storage = KeptStorage()
        self._make = make
        self._cluster: Cluster | None = None
        self._ended = anyio.Event()

    @property
    def running(self) -> bool:
        return self._cluster is not None

    @property
    def cluster(self) -> Cluster:
        """The `Cluster` that runs now. An error while none does."""
        assert self._cluster is not None, f"{self.name} is not running"
        return self._cluster

    @property
    def is_leader(self) -> bool:
        """It runs, and believes that it leads."""
        return self._cluster is not None and self._cluster.is_leader

    @property
    def follows(self) -> NodeId | None:
        """Whom it believes to lead."""
        return None if self._cluster is None else self._cluster.leader

    def storage(self, context: StorageContext) -> KeptStorage:
        """A `StorageFactory`: the same storage in every life in one cluster."""
        if self._storage.gone:
            self._storage = KeptStorage()
        return self._storage

    async def live(self, *, task_status: TaskStatus[None]) -> None:
        """Run until stopped or crashed; a server that fails does not fail the test around it."""
        started = False
        try:
            async with self._make(self) as cluster:
                self._cluster, self._ended, self.failure = cluster, anyio.Event(), None
                started = True
                task_status.started()
                await cluster.serve()
        except Exception as error:
            if not started:
                raise
            self.failure = error
        finally:
            self._cluster = None
            self._ended.set()

    async def end(self, *, orderly: bool) -> None:
        """Stop with all courtesies, or at once."""
        if self._cluster is None:
            return
        if orderly:
            await self._cluster.stop()
        else:
            self._cluster._require_driver().stop()
        await self._ended.wait()

    def __repr__(self) -> str:
        state = "down" if not self.running else "leads" if self.is_leader else "follows"
        return f"<{self.name} {state}>"


class MemoryCluster:
    """Servers and their clients in one event loop: an async context manager.

    Entering it starts all servers and waits until they serve. Whatever happens to them
    afterwards is a call of this object.
    """

    def __init__(
        self,
        count: int = 3,
        *,
        name: str = "shop",
        network: CutNetwork | None = None,
        faults: FaultSettings | None = None,
        config: Config | None = None,
        **settings: Any,
    ) -> None:
        """`count` servers, on a network of their own unless one is given.

        `faults`: what the network does to each datagram. `settings` go to every `Cluster`: an
        election, a multicast, plugins, a key. Times are short unless a `config` says otherwise.
        """
        self.name = name
        self.network = network or CutNetwork()
        self._config = config or quick()
        self._settings = settings
        self._transport: TransportFactory = self.network.open_transport
        if faults is not None:
            self._transport = faulty(self.network.open_transport, faults)
        addresses = [(f"127.0.0.{number + 1}", PORT) for number in range(count)]
        self._addresses = addresses
        self.servers: Sequence[MemoryServer] = tuple(
            MemoryServer(f"server-{number}", address, self._make)
            for number, address in enumerate(addresses)
        )
        self._stack = AsyncExitStack()
        self._group: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(loop_time())
            self._group = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        try:
            await self.start(*self.servers)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What the body raised goes on as it is, and in no group."""
        await self._close()

    async def _close(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                for server in self.servers:
                    await server.end(orderly=False)
        finally:
            await self._stack.aclose()

    # --- what applications do -----------------------------------------------------------------

    def client(self, name: str = "till", **settings: Any) -> InventoryClient:
        """A client of this cluster, to be entered. `settings` are those of `InventoryClient`."""
        given = {"config": self._config, "key": self._settings.get("key"), **settings}
        return InventoryClient(
            self.name,
            name=name,
            servers=self._addresses,
            transport=self._transport,
            discovery=self.network.open_discovery,
            **given,
        )

    # --- what happens to servers --------------------------------------------------------------

    async def start(self, *servers: MemoryServer) -> None:
        """Start those that do not run, and wait until each of them has a leader or leads."""
        assert self._group is not None, "enter the MemoryCluster first: async with MemoryCluster()"
        for server in servers:
            if not server.running:
                await self._group.start(server.live)
        await self._until("the servers are ready", lambda: all(map(_is_ready, servers)))

    async def crash(self, server: MemoryServer) -> None:
        """As a power cut does: it says no last word, and keeps what it had committed."""
        self.network.cut(server.address)
        await server.end(orderly=False)
        self.network.heal(server.address)

    async def stop(self, server: MemoryServer) -> None:
        """As somebody does who wants to maintain it: it hands leadership over first."""
        await server.end(orderly=True)

    async def restart(self, server: MemoryServer) -> None:
        """Start it again with all that it had committed; a running one is crashed before."""
        await self.crash(server)
        await self.start(server)

    def cut(self, *servers: MemoryServer) -> None:
        """Separate these, together, from everybody else. They notice nothing at first."""
        self.network.cut(*(server.address for server in servers))

    def heal(self) -> None:
        """Mend every cut."""
        self.network.heal()

    # --- what is waited for -------------------------------------------------------------------

    async def leader(self) -> MemoryServer:
        """The server that leads, that a majority follows and can hear; waits until there is one.

        One that was cut off believes for a while that it still leads, and so do others.
        """
        await self._until("a majority follows a leader", lambda: self._leader() is not None)
        leader = self._leader()
        assert leader is not None, "looked at since"
        return leader

    async def followers(self) -> list[MemoryServer]:
        """The running servers but for the leader."""
        leader = await self.leader()
        return [server for server in self.servers if server.running and server is not leader]

    async def converged(self) -> None:
        """Wait until all running servers have applied the same log, and check that they agree."""
        await self._until("all servers have applied the same log", self._is_level)
        digests = {status.state_digest for status in self._statuses()}
        assert len(digests) == 1, f"equal logs gave unequal stores: {self._statuses()}"

    def _leader(self) -> MemoryServer | None:
        for server in self.servers:
            if server.is_leader:
                followers = [
                    each
                    for each in self.servers
                    if each.follows == server.cluster.node_id
                    and self.network.connects(server.address, each.address)
                ]
                if 2 * len(followers) > len(self.servers):
                    return server
        return None

    def _statuses(self) -> list[StatusReply]:
        return [server.cluster.status() for server in self.servers if server.running]

    def _is_level(self) -> bool:
        statuses = self._statuses()
        ends = {(status.applied, status.last_index) for status in statuses}
        return len(ends) == 1 and all(applied == last for applied, last in ends)

    async def _until(self, what: str, condition: Callable[[], bool]) -> None:
        with anyio.move_on_after(PATIENCE_S):
            while not condition():
                await anyio.sleep(_GLANCE_S)
            return
        raise AssertionError(f"not within {PATIENCE_S} s: {what}; {list(self.servers)}")

    def _make(self, server: MemoryServer) -> Cluster:
        return Cluster(
            self.name,
            data_dir=Path(server.name),
            server_name=server.name,
            bind="{}:{}".format(*server.address),
            servers=self._addresses,
            transport=self._transport,
            discovery=self.network.open_discovery,
            storage=server.storage,
            **{"expect": len(self.servers), "config": self._config, **self._settings},
        )


def _is_ready(server: MemoryServer) -> bool:
    if server.failure is not None:
        raise server.failure
    return server.is_leader or server.follows not in (None, server.cluster.node_id)
