"""`Cluster`: one server of a cluster, in this process.

    async with Cluster("shop", data_dir="node-1", expect=3, key="shop.key") as cluster:
        await cluster.ready()
        await cluster.serve()

`opening.py` puts the server together, `driver.py` runs it; this is its face. Leaving the context
hands leadership over and stops; the vote is kept, so the cluster goes on counting this server
until it is back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

import anyio
import anyio.to_thread
from attrs import asdict

from distinv.config import Config, lan
from distinv.core.leader import Leader
from distinv.discovery.api import DiscoveryFactory
from distinv.election.api import ElectionFactory
from distinv.entry import NodeId
from distinv.errors import ConfigError, InvalidRequest, NoLeader
from distinv.multicast.api import MulticastFactory
from distinv.plugins.manager import Plugins
from distinv.runtime.driver import Driver
from distinv.runtime.observers import Audience
from distinv.runtime.opening import Opened, Plan, open_server
from distinv.runtime.settings import (
    KEY_VARIABLE,
    parse_addresses,
    randomness,
    text_name,
)
from distinv.server.engine import Engine
from distinv.server.settings import Settings
from distinv.storage.api import StorageFactory
from distinv.transport.api import Address, TransportFactory
from distinv.wire.messages import StatusReply
from distinv.wire.seal import load_key

_SECOND_US = 1_000_000


class Cluster:
    """This process's server in the cluster `name`: an async context manager."""

    def __init__(
        self,
        name: str,
        *,
        data_dir: str | os.PathLike[str],
        expect: int | None = None,
        election: str | ElectionFactory = "bully",
        multicast: str | MulticastFactory = "fanout",
        discovery: str | DiscoveryFactory | None = None,
        transport: str | TransportFactory = "udp",
        storage: str | StorageFactory = "journal",
        key: bytes | str | os.PathLike[str] | None = None,
        bind: str | None = None,
        servers: Iterable[str | Address] | None = None,
        insecure: bool = False,
        server_name: str | None = None,
        plugins: Iterable[object] = (),
        config: Config | None = None,
        preempt: bool = False,
        seed: int | None = None,
    ) -> None:
        """What is not given has a working default.

        `data_dir` holds everything that this server must not forget; with the storage `memory`
        nothing is written. `expect`: wait for so many servers before the cluster is born.
        `election`, `multicast`, `discovery`, `transport` and `storage` name a plugin, or are a
        factory. `key`: the cluster key, 32 bytes or the file that holds it, else what the
        environment's DISTINV_KEY names; without one the server stays on loopback unless
        `insecure`. `bind`: "HOST:PORT", "HOST" or ":PORT". `servers`: addresses to look for
        others at, instead of announcing oneself. `preempt`: take leadership over from a lower
        id. `seed` makes what is random reproducible, but for the ids.

        Raises ConfigError and PluginError.
        """
        self._config = config or lan()
        limits = self._config.limits
        self._name = text_name("a cluster's name", name, limits)
        given = Path(data_dir).resolve().name if server_name is None else server_name
        self._server_name = text_name("a server's name", given or "server", limits)
        if expect is not None and not 1 <= expect <= limits.servers_max:
            raise ConfigError(
                f"expect is {expect}: a cluster has 1 to {limits.servers_max} servers"
            )
        addresses = parse_addresses(servers or (), self._config.network)
        registry = Plugins(plugins)
        self._audience = Audience(registry.observers(), self._name, self._server_name)
        self._plan = Plan(
            settings=Settings(
                self._name, self._server_name, expect or 0, _label_of(election), preempt
            ),
            config=self._config,
            data_dir=Path(data_dir),
            key=load_key(os.environ.get(KEY_VARIABLE) if key is None else key),
            bind=bind,
            insecure=insecure,
            servers=addresses,
            election=registry.election(election),
            multicast=registry.multicast(multicast),
            discovery=registry.discovery(discovery or ("static" if addresses else "beacon")),
            transport=registry.transport(transport),
            storage=registry.storage(storage),
            audience=self._audience,
            random=randomness(seed),
        )
        self._stack = AsyncExitStack()
        self._opened: Opened | None = None
        self._failure_raised = False
        self._stopping = False

    # --- the context ----------------------------------------------------------------------------

    async def __aenter__(self) -> Cluster:
        """Open everything and take part.

        Raises StorageError for a data directory that is locked, damaged or another cluster's,
        IdentityInUse for the copy of one whose server runs, and ConfigError for an address that
        cannot be had.
        """
        if self._opened is not None:
            raise ConfigError("a Cluster is entered once; make another one")
        async with AsyncExitStack() as stack:
            self._opened = await open_server(self._plan, stack)
            group = await stack.enter_async_context(anyio.create_task_group())
            group.start_soon(self._opened.driver.run)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See `stop`. Raises the server's failure, if nobody has been told of it yet.

        What the body raised is its own affair: it goes on as it is, and in no group.
        """
        try:
            with anyio.CancelScope(shield=True):
                await self.stop()
        finally:
            await self._stack.aclose()
        if error is None and not self._failure_raised:
            self._raise_failure()

    async def ready(self) -> None:
        """Wait until there is a leader and, when it is this server, until it serves."""
        await self._wait_until(self._is_ready)

    async def serve(self) -> None:
        """Take part until the context is left or `stop` is called.

        Raises StorageError when the disk failed: then the server has stopped by itself.
        """
        driver = self._require_driver()
        await driver.ended.wait()
        self._raise_failure()

    async def stop(self) -> None:
        """Hand leadership over, if this server leads, and stop. The vote is kept."""
        driver = self._require_driver()
        if self._stopping or driver.ended.is_set():
            await driver.ended.wait()
            return
        self._stopping = True
        others = self._engine.node.other_voters()
        if self.is_leader and others and await self._hand_over(None):
            self._audience.say("has handed leadership over and stops")
        else:
            self._audience.say("stops")
        driver.stop()
        await driver.ended.wait()

    async def leave(self, *, timeout: float = 30.0) -> None:
        """Give this server's vote up for good, and stop: the others go on as a smaller cluster.

        Returns when a majority of the remaining voters knows it; the data directory is not needed
        any more. A server that leads hands over first. Raises NoLeader when that did not come
        about within `timeout` seconds, InvalidRequest when nobody else could vote (or be heard);
        the server goes on then. A server started again with the same directory joins again.
        """
        driver, leaving = self._require_driver(), self._engine.leaving
        driver.leave()
        with anyio.move_on_after(timeout):
            while not (leaving.done or leaving.refusal or driver.ended.is_set()):
                await anyio.sleep(self._config.timing.heartbeat_us / _SECOND_US)
        if leaving.refusal:
            raise InvalidRequest(f"{leaving.refusal}.")
        if not leaving.done:
            driver.leave(give_up=True)
            raise NoLeader("No leader let this server go in time: it goes on, and keeps its vote.")
        await driver.ended.wait()

    async def transfer(self, target: str | NodeId | None = None) -> bool:
        """Hand leadership over to a voter, given by name or id, or to the best follower.

        True when another server leads now; False when that did not come about in time. Raises
        NoLeader when this server does not lead, ConfigError when the target is no other voter.
        """
        if not self.is_leader:
            raise NoLeader("This server does not lead: ask the one that does.")
        return await self._hand_over(None if target is None else self._voter(target))

    # --- what is known --------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._name

    @property
    def server_name(self) -> str:
        return self._server_name

    @property
    def node_id(self) -> NodeId:
        """Its id in its cluster. Another one should that cluster dissolve (docs/operations.md)."""
        return self._engine.self_id

    @property
    def address(self) -> Address:
        """Where this server is bound; the host may be 0.0.0.0."""
        return self._require_opened().address

    @property
    def is_leader(self) -> bool:
        """This server leads and serves."""
        return self._takes_part and self._engine.node.serving

    @property
    def stopping(self) -> bool:
        """This server has been told to stop."""
        return self._stopping

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as this server knows; None once it has stopped."""
        return self._engine.node.leader if self._takes_part else None

    def status(self) -> StatusReply:
        """This server in the words of `distinv status`."""
        return self._require_driver().status()

    def counters(self) -> dict[str, int]:
        """Counts since the start: datagrams, repairs, what was dropped and why."""
        driver, endpoint = self._require_driver(), self._engine.endpoint
        dropped = {f"dropped: {reason}": count for reason, count in endpoint.dropped.items()}
        return asdict(endpoint.stats) | dropped | {"dropped: inbox full": driver.overflowed}

    # --- inside ---------------------------------------------------------------------------------

    def _require_opened(self) -> Opened:
        if self._opened is None:
            raise ConfigError("enter the Cluster first: async with Cluster(...) as cluster")
        return self._opened

    def _require_driver(self) -> Driver:
        return self._require_opened().driver

    @property
    def _takes_part(self) -> bool:
        driver = self._require_driver()
        return not (driver.ended.is_set() or driver.renewing)

    @property
    def _engine(self) -> Engine:
        return self._require_driver().engine

    def _is_ready(self) -> bool:
        return self.is_leader or self.leader not in (None, self.node_id)

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        driver = self._require_driver()
        try:
            await driver.wait_until(condition)
        finally:
            self._failure_raised = self._failure_raised or driver.failure is not None

    def _raise_failure(self) -> None:
        failure = self._require_driver().failure
        if failure is not None:
            self._failure_raised = True
            raise failure

    async def _hand_over(self, target: NodeId | None) -> bool:
        """Wait for the successor's first word: until then it may need this server's promise."""
        driver, node = self._require_driver(), self._engine.node
        driver.transfer(target)

        def settled() -> bool:
            called_off = isinstance(node.role, Leader) and not node.role.handing_over
            return called_off or driver.ended.is_set() or node.leader not in (None, node.self_id)

        with anyio.move_on_after(self._config.timing.transfer_us / _SECOND_US):
            await driver.wait_until(settled)
        return not isinstance(node.role, Leader)

    def _voter(self, target: str | NodeId) -> NodeId:
        node = self._engine.node
        names = {node.name_of(voter): voter for voter in node.other_voters()}
        for name, voter in names.items():
            if target in (name, voter):
                return voter
        choices = ", ".join(sorted(names)) or "there is none"
        raise ConfigError(f"{target!r} is no other voter of this cluster; choose one of: {choices}")


def _label_of(election: str | ElectionFactory) -> str:
    """What election messages are labelled with: the same on all servers."""
    if isinstance(election, str):
        return election
    return str(getattr(election, "__qualname__", type(election).__qualname__))
