"""Real servers in processes of their own, for demonstrations, benchmarks and tests.

    async with ServerProcesses(3, loss=0.1) as servers:
        async with servers.client("till-1") as inventory:
            await inventory.put_item("85123A")
            leader = await servers.leader()
            await leader.kill()                          # SIGKILL
            await inventory.receive({"85123A": 100})     # the others go on
            await leader.start()
        for status in await servers.wait_converged():
            print(status.name, status.seq, status.digest)

Every cluster is by itself: a name of its own, a beacon port of its own, this machine only, and
a directory that is removed at the end. No process outlives its starter, however that one ends:
leaving the context stops them, and a server that loses its starter stops by itself.

With `steered=True` the network of each server can be spoilt while it runs, see
`distinv.testing.steering`: `server.faults.cut(…)`, `servers.heal()`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from attrs import evolve, frozen

import distinv
from distinv.config import Config, FaultSettings, lan
from distinv.discovery.beacon import LOOPBACK_BROADCAST
from distinv.entry import NodeId
from distinv.errors import Unavailable
from distinv.runtime.settings import KEY_VARIABLE
from distinv.testing.ports import ReservedPorts
from distinv.testing.server_process import (
    PATIENCE_S,
    Place,
    ServerFailed,
    ServerProcess,
    wait_until,
)
from distinv.transport.api import Address
from distinv.transport.faulty import Cuts, faulty
from distinv.transport.udp import open_udp
from distinv.wire.seal import new_key

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient

__all__ = [
    "Place",
    "ServerFailed",
    "ServerProcess",
    "ServerProcesses",
    "ServerStatus",
]

_ASK_S = 1.0
"""How long one round of questions to all servers may take; then they are asked again."""


@frozen
class ServerStatus:
    """What one server said of itself."""

    name: str
    node: NodeId
    role: str
    """leader, follower, candidate or blank."""
    seq: int
    digest: str
    """The inventory digest at `seq`."""
    state_digest: str
    applied: int
    """The log index of `state_digest`; `seq` and `digest` may be from a moment before."""
    term: int
    voters: tuple[NodeId, ...]
    """Who votes, as far as it knows."""


class ServerProcesses:
    """A cluster of server processes on this machine, as an async context manager."""

    def __init__(
        self,
        count: int = 3,
        *,
        expect: int | None = 0,
        cluster: str = "demo",
        directory: str | os.PathLike[str] | None = None,
        election: str = "bully",
        multicast: str = "fanout",
        backend: str = "asyncio",
        key: bytes | None = None,
        loss: float = 0.0,
        seed: int | None = None,
        log_level: str = "info",
        arguments: Sequence[str] = (),
        steered: bool = False,
        places: Sequence[Place] | None = None,
        program: Sequence[str] = ("-m", "distinv"),
        starts_s: Sequence[float] = (),
    ) -> None:
        """`count` servers, all of them expected at the birth, or `expect`; None: whoever is there.

        `cluster` is the beginning of the cluster's name. `directory` is kept if it is given.
        `loss` holds for every server and every client made here; `seed` makes it reproducible.
        `key` seals everything; none is needed, but one is made where the environment has a key.
        `arguments` are further ones for `distinv serve`. `steered` servers take what their
        `faults` say while they run. `places` says where each server runs, when they are not
        to be on this machine's loopback; they need a `key` then. `program` is what Python runs
        instead of distinv; it is given the arguments of `distinv serve`. `starts_s` says when
        each server is started, in seconds from entering on; all at once if it is not given.
        """
        self.cluster = f"{cluster}-{secrets.token_hex(3)}"
        # A client that is given none takes the environment's.
        self.key = new_key() if key is None and KEY_VARIABLE in os.environ else key
        self._directory = Path(directory) if directory is not None else None
        self._keep = directory is not None
        self._loss = loss
        self._seed = seed
        self._steered = steered
        self._places = places
        self._program = program
        self._starts_s = starts_s or (0.0,) * count
        self._ports = ReservedPorts()
        self.beacon_port = self._ports.take()
        self._count = count
        self._arguments = (
            *("--cluster", self.cluster),
            *(() if expect is None else ("--expect", str(expect or count))),
            *("--beacon-port", str(self.beacon_port), "--election", election),
            *("--multicast", multicast, "--backend", backend, "--log-level", log_level),
            *("--json", "--until-stdin-closes"),
            *arguments,
        )
        self.servers: tuple[ServerProcess, ...] = ()
        self._stack = AsyncExitStack()
        self._watcher: InventoryClient | None = None

    # --- the context ----------------------------------------------------------------------------

    async def __aenter__(self) -> ServerProcesses:
        """Start all servers and wait until they have formed a cluster. Raises ServerFailed."""
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        if self.key is not None:
            _write_key(self._key_file, self.key)
        places = self._places or [self._loopback() for _ in range(self._count)]
        self.servers = tuple(self._server(n, place) for n, place in enumerate(places, 1))
        try:
            await self._launch()
            await self.wait_ready()
            self._watcher = await self._stack.enter_async_context(self.client("watcher"))
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._stack.aclose()
            if error is None:
                await self.stop()
        finally:
            self._end()

    async def _launch(self) -> None:
        began = anyio.current_time()
        for number, start_s in sorted(enumerate(self._starts_s), key=lambda each: each[1]):
            await anyio.sleep_until(began + start_s)
            self.servers[number].launch()

    async def stop(self) -> None:
        """SIGTERM to all of them at once."""
        async with anyio.create_task_group() as group:
            for server in self.servers:
                group.start_soon(server.stop)

    def _end(self) -> None:
        for server in self.servers:
            server.end()
        self._ports.release()
        if self._directory is not None and not self._keep:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def beacon_address(self) -> Address:
        """Where servers on this machine announce themselves."""
        return (LOOPBACK_BROADCAST, self.beacon_port)

    @property
    def directory(self) -> Path:
        """Where everything is that the servers write; made when it is first asked for."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="distinv-"))
        self._directory.mkdir(parents=True, exist_ok=True)
        return self._directory

    # --- what to do with them -------------------------------------------------------------------

    def __getitem__(self, name: str) -> ServerProcess:
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)

    @property
    def running(self) -> tuple[ServerProcess, ...]:
        return tuple(server for server in self.servers if server.running)

    @property
    def client_arguments(self) -> tuple[str, ...]:
        """What a client command of `distinv` needs to find this cluster."""
        key = () if self.key is None else ("--key", str(self._key_file))
        loss = ("--loss", str(self._loss)) if self._loss else ()
        port = ("--beacon-port", str(self.beacon_port))
        return ("--cluster", self.cluster, *port, *key, *loss)

    @property
    def config(self) -> Config:
        """What a client of these servers has to use."""
        config = lan()
        faults = FaultSettings(loss=self._loss, seed=self._seed)
        network = evolve(config.network, beacon_port=self.beacon_port, faults=faults)
        return evolve(config, network=network)

    def client(
        self, name: str = "client", *, cuts: Cuts | None = None, **settings: Any
    ) -> InventoryClient:
        """A client of this cluster, not entered yet; it loses datagrams as the servers do.

        `cuts` are its own. `settings` are further arguments of `InventoryClient`.
        """
        from distinv.client.client import InventoryClient

        config = self.config
        bad_network = self._loss > 0 or cuts is not None
        faults = faulty(open_udp, config.network.faults, cuts)
        return InventoryClient(
            self.cluster,
            name=name,
            key=self.key,
            transport=faults if bad_network else "udp",
            config=config,
            **settings,
        )

    async def add(self) -> ServerProcess:
        """Start one more server; it joins the others. Raises ServerFailed."""
        server = self._server(len(self.servers) + 1, self._loopback())
        self.servers += (server,)
        server.launch()
        await server.wait_ready(PATIENCE_S)
        return server

    def heal(self) -> None:
        """Mend all cuts of all steered servers."""
        for server in self.servers:
            server.faults.heal()

    async def wait_ready(self, timeout: float = PATIENCE_S) -> None:
        """Wait until every server launched knows a leader.

        Raises ServerFailed: at once when one of them ends, and with all that are not ready when
        the time is over.
        """
        launched = [server for server in self.servers if server.launched]

        def unready() -> list[ServerProcess]:
            for server in launched:
                server.check()
            return [server for server in launched if not server.is_ready]

        await wait_until(
            lambda: not unready(),
            timeout,
            lambda: "not ready: " + ", ".join(server.describe() for server in unready()),
        )

    async def leader(self, timeout: float = PATIENCE_S) -> ServerProcess:
        """The running server that leads now. Raises ServerFailed when there is none in time."""
        found: list[ServerProcess] = []

        async def look() -> bool:
            leaders = [status for status in await self.ask() if status.role == "leader"]
            if leaders:
                newest = max(leaders, key=lambda status: status.term)
                found.append(self[newest.name])
            return bool(found) and found[-1].running

        await wait_until(look, timeout, "there is no leader")
        return found[-1]

    async def statuses(self, timeout: float = PATIENCE_S) -> tuple[ServerStatus, ...]:
        """What every server launched says of itself, by name. Raises ServerFailed."""
        found: dict[str, ServerStatus] = {}

        async def look() -> bool:
            found.update((status.name, status) for status in await self.ask())
            for server in self.servers:
                server.check()
            return all(server.name in found for server in self.servers if server.launched)

        await wait_until(look, timeout, "some servers do not answer")
        return tuple(found[name] for name in sorted(found))

    async def wait_converged(self, timeout: float = PATIENCE_S) -> tuple[ServerStatus, ...]:
        """Wait until all running servers are at one log index, and return what they say then.

        Their digests are not compared: that is the caller's verdict. Raises ServerFailed.
        """
        found: list[tuple[ServerStatus, ...]] = []

        async def look() -> bool:
            found.append(await self.statuses(timeout))
            # A digest is computed aside: meanwhile the server goes on, and `seq` stays behind.
            return len({(status.applied, status.seq) for status in found[-1]}) == 1

        await wait_until(look, timeout, "the servers do not come to the same log index")
        return found[-1]

    @property
    def watcher(self) -> InventoryClient:
        """The client that looks at them: for orders to their leader."""
        assert self._watcher is not None, "enter the context first"
        return self._watcher

    async def ask(self) -> list[ServerStatus]:
        """What those say of themselves that answer within a second."""
        try:
            replies = await self.watcher.status(timeout=_ASK_S)
        except Unavailable:
            return []
        return [
            ServerStatus(
                name=reply.name,
                node=NodeId(reply.node),
                role=reply.role,
                seq=reply.seq,
                digest=reply.digest,
                state_digest=reply.state_digest,
                applied=reply.applied,
                term=reply.ballot.term,
                voters=tuple(NodeId(each.node) for each in reply.servers if each.votes),
            )
            for reply in replies
        ]

    # --- inside ---------------------------------------------------------------------------------

    @property
    def _key_file(self) -> Path:
        assert self._directory is not None, "enter the context first"
        return self._directory / "key"

    def _server(self, number: int, place: Place) -> ServerProcess:
        key = () if self.key is None else ("--key", str(self._key_file))
        return ServerProcess(
            f"server-{number}",
            self.directory,
            [
                *(sys.executable, *self._program, "serve", *self._arguments),
                *key,
                *self._faults(number),
            ],
            _environment(),
            place,
            steered=self._steered,
        )

    def _loopback(self) -> Place:
        """A port of this machine, reserved when it is needed."""
        return Place(bind=f"127.0.0.1:{self._ports.take()}")

    def _faults(self, number: int) -> list[str]:
        faults = ["--loss", str(self._loss)] if self._loss else []
        return faults if self._seed is None else [*faults, "--seed", str(self._seed + number)]


def _environment() -> dict[str, str]:
    """The children import the same distinv, and take no key or name but ours."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in (KEY_VARIABLE, "DISTINV_CLUSTER")
    }
    package = str(Path(distinv.__file__).parents[1])
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (package, env.get("PYTHONPATH", ""))))
    return env


def _write_key(path: Path, key: bytes) -> None:
    path.touch(0o600)
    path.write_text(key.hex() + "\n")
