"""Who does the faults: kills leaders, and beside it everything else, as the plan says.

A server that is down on purpose is *held* by whoever brought it down, who starts it again; nobody
else touches it meanwhile. A server that ends while nobody holds it is a failure of the campaign.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import anyio
import anyio.to_thread
from attrs import evolve

from distinv.entry import NodeId
from distinv.testing.processes import ServerFailed, ServerProcess, ServerProcesses
from distinv.testing.torture.disk import SmallDisk
from distinv.testing.torture.members import Members
from distinv.testing.torture.plan import Fault, Kind
from distinv.testing.torture.recorder import Recorder, now_us
from distinv.testing.torture.wires import Wires

_POLL_S = 0.02
_DISK_S = 10.0
"""With a full disk a server that writes stops long before."""
_STOPPING_S = 2.0
"""One that met the full disk in its last moment may still be about to stop."""
_READY_S = 60.0
_STOPPED_BY_ITSELF = 3
"""The exit status of `distinv serve` for it."""
_FULL = ("No space left on device", "disk is full")
"""What the journal's error and the store's say of a full disk."""
_SNAPSHOT = "goes on from a snapshot"
"""What a server says that has installed one."""
_LOG_CHARS = 1_000
"""The end of a log, with the last error in it."""


class Nemesis:
    """Carries out faults until it is cancelled; `heal` ends what is still broken."""

    def __init__(
        self,
        servers: ServerProcesses,
        wires: Wires,
        recorder: Recorder,
        disk: SmallDisk | None,
        say: Callable[[str], None],
    ) -> None:
        """`disk` is the last server's, if it has one of its own; `say` is told of each fault."""
        self._processes = servers
        self._wires = wires
        self._recorder = recorder
        self._disk = disk
        self._say = say
        self._members = Members(servers)
        self._held: dict[str, None] = {}
        self._calm = False
        """No leader is killed: who votes is about to be decided."""
        self.counts: Counter[str] = Counter()
        """Faults done, by their kind, and `server_kills`, `leader_pauses`."""
        self._handlers: dict[Kind, Callable[[Fault], Awaitable[None]]] = {
            Kind.KILL: self._kill_any,
            Kind.PAUSE: self._pause,
            Kind.PARTITION: self._partition,
            Kind.ISOLATION: self._isolate,
            Kind.ONE_WAY: self._cut_one_way,
            Kind.CLIENTS: self._cut_clients,
            Kind.LOSS: self._lose,
            Kind.DISK_FULL: self._fill_disk,
            Kind.RESTART: self._restart_all,
            Kind.ROLLING: self._restart_in_turn,
            Kind.LEAVE: self._let_go,
            Kind.DISK_LOST: self._lose_disk,
        }

    @property
    def _servers(self) -> tuple[ServerProcess, ...]:
        return self._processes.servers

    # --- the two schedules, and the guard ---------------------------------------------------------

    async def kill_leaders(self, faults: Iterable[Fault]) -> None:
        """Kill leader after leader, each while commands are being acknowledged."""
        for fault in faults:
            await _sleep_us(fault.wait_us)
            while self._calm:
                await anyio.sleep(_POLL_S)
            await self._some_command()
            leader = await self._leader()
            if leader is None:
                continue
            with self._hold(leader):
                await self._kill(leader, "the leader")
                self.counts[Kind.LEADER_KILL] += 1
                await _sleep_us(fault.lasts_us)
                leader.launch()

    async def trouble(self, faults: Iterable[Fault]) -> None:
        """Do one fault after another."""
        for fault in faults:
            await _sleep_us(fault.wait_us)
            await self._handlers[fault.kind](fault)

    async def guard(self) -> None:
        """Raises ServerFailed when a server ends by itself."""
        while True:
            for server in self._servers:
                if server.name not in self._held:
                    server.check()
            await anyio.sleep(_POLL_S)

    async def heal(self) -> None:
        """Everything runs, and nothing is cut. Raises ServerFailed."""
        await self._heal_wires()
        if self._disk is not None:
            self._disk.free()
        unfinished = self._members.unfinished
        self._run_again(server for server in self._servers if server not in unfinished)
        await self._members.finish()  # which takes a leader: the others have to run for that
        self._run_again(unfinished)
        await self._processes.wait_ready(_READY_S)

    def _run_again(self, servers: Iterable[ServerProcess]) -> None:
        for server in servers:
            server.resume()
            if not self._stopped_by_disk(server):
                server.check()
            if not server.running:
                server.launch()

    def count_snapshots(self) -> None:
        """How often a server took another one's store over, as they say."""
        self.counts["snapshots"] = sum(server.log.count(_SNAPSHOT) for server in self._servers)

    # --- processes --------------------------------------------------------------------------------

    async def _kill_any(self, fault: Fault) -> None:
        server = await self._victim(fault)
        if server is None:
            return
        with self._hold(server):
            await self._kill(server, "any server")
            self.counts[Kind.KILL] += 1
            await _sleep_us(fault.lasts_us)
            server.launch()

    async def _kill(self, server: ServerProcess, whom: str) -> None:
        self._say(f"kill {server.name}, {whom}")
        self.counts["server_kills"] += 1
        await server.kill()

    async def _pause(self, fault: Fault) -> None:
        server = await self._victim(fault)
        if server is None:
            return
        self._say(f"pause {server.name} for {fault.lasts_us // 1_000} ms")
        self.counts[Kind.PAUSE] += 1
        self.counts["leader_pauses"] += fault.at_leader
        server.pause()
        try:
            await _sleep_us(fault.lasts_us)
        finally:
            server.resume()

    async def _restart_all(self, fault: Fault) -> None:
        while self._held:  # whoever holds a server starts it again soon
            await anyio.sleep(_POLL_S)
        with self._hold(*self._servers):
            self._say("kill all servers at once")
            self.counts[Kind.RESTART] += 1
            self.counts["server_kills"] += len(self._servers)
            for server in self._servers:
                if server.pid is not None:
                    os.kill(server.pid, 9)  # all of them before any is waited for
            for server in self._servers:
                await server.kill()
            for server in self._servers:
                server.launch()
        await self._wait_ready(*self._servers)

    # --- who belongs to it ------------------------------------------------------------------------

    async def _restart_in_turn(self, fault: Fault) -> None:
        self._say("restart all servers, one after the other")
        self.counts[Kind.ROLLING] += 1
        for number in fault.order:
            server = self._servers[number]
            while server.name in self._held:  # whoever holds it starts it again soon
                await anyio.sleep(_POLL_S)
            with self._hold(server):
                await self._members.restart(server)

    async def _let_go(self, fault: Fault) -> None:
        server = await self._expendable(fault)
        if server is None:
            return
        with self._hold(server):
            node = await self._members.node_of(server)
            self._say(f"let {server.name} leave, and join again with nothing")
            self.counts[Kind.LEAVE] += 1
            await self._members.leave(server, node)
        await self._settle(node)

    async def _lose_disk(self, fault: Fault) -> None:
        server = await self._expendable(fault)
        if server is None or not await self._members.can_spare_a_disk():
            return
        with self._hold(server):
            node = await self._members.node_of(server)
            self._say(f"kill {server.name}, and its disk is gone")
            self.counts["server_kills"] += 1
            self.counts[Kind.DISK_LOST] += 1
            await self._members.lose_disk(server)
        await self._settle(node)

    async def _expendable(self, fault: Fault) -> ServerProcess | None:
        """The fault's victim, but not the one whose disk fills up."""
        spared = self._servers[-1] if self._disk is not None else None
        server = await self._victim(fault)
        if server is None or server is not spared:
            return server
        rest = [number for number in fault.order if self._servers[number] is not spared]
        return await self._victim(evolve(fault, at_leader=False, order=tuple(rest)))

    async def _settle(self, gone: NodeId) -> None:
        self._calm = True
        try:
            await self._members.wait_settled(gone)
        finally:
            self._calm = False

    async def _wait_ready(self, *servers: ServerProcess) -> None:
        """Wait until they know a leader, but for those that are killed again meanwhile.

        Raises ServerFailed.
        """
        with anyio.move_on_after(_READY_S):
            while True:
                if all(server.is_ready or server.name in self._held for server in servers):
                    return
                await anyio.sleep(_POLL_S)
        late = " ".join(server.name for server in servers if not server.is_ready)
        raise ServerFailed(f"not ready after {_READY_S:.0f} s: {late}")

    async def _fill_disk(self, fault: Fault) -> None:
        server = self._servers[-1]
        if self._disk is None:
            return
        while server.name in self._held:  # whoever holds it starts it again soon
            await anyio.sleep(_POLL_S)
        with self._hold(server):
            self._say(f"fill the disk of {server.name}")
            await anyio.to_thread.run_sync(self._disk.fill)
            self.counts[Kind.DISK_FULL] += 1
            try:
                await self._wait_stopped(server, _DISK_S)
            finally:
                self._disk.free()
            await self._wait_stopped(server, _STOPPING_S)
            self._check_full_disk(server)
            if not server.running:
                server.launch()
        await self._wait_ready(server)

    async def _wait_stopped(self, server: ServerProcess, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            while server.running:
                await anyio.sleep(_POLL_S)

    def _check_full_disk(self, server: ServerProcess) -> None:
        """It has stopped by itself, with its error and its exit status."""
        if server.running:
            self.counts["disk_full_survivals"] += 1  # it needed no new space meanwhile
        elif self._stopped_by_disk(server):
            self.counts["disk_full_stops"] += 1
        else:
            server.check()

    def _stopped_by_disk(self, server: ServerProcess) -> bool:
        """As it has to when its disk is full: by itself, with its own exit status."""
        return (
            self._disk is not None
            and server is self._servers[-1]
            and server.exit_status == _STOPPED_BY_ITSELF
            and any(words in server.log[-_LOG_CHARS:] for words in _FULL)
        )

    # --- the network ------------------------------------------------------------------------------

    async def _partition(self, fault: Fault) -> None:
        side = list(fault.order[: fault.side])
        if fault.at_leader:
            leader = await self._victim(fault)
            number = self._number(leader)
            side = [number, *(other for other in fault.order if other != number)][: fault.side]
        names = " ".join(self._servers[number].name for number in side)
        await self._break(fault, f"part {names} from the others", self._wires.partition, side)

    async def _isolate(self, fault: Fault) -> None:
        server = await self._victim(fault)
        if server is not None:
            number = self._number(server)
            await self._break(fault, f"isolate {server.name}", self._wires.isolate, number)

    async def _cut_one_way(self, fault: Fault) -> None:
        server = await self._victim(fault)
        if server is None:
            return
        number = self._number(server)
        other = fault.order[0] if fault.order[0] != number else fault.order[-1]
        text = f"cut {server.name} one way: {fault.way}"
        await self._break(fault, text, self._wires.cut_one_way, number, fault.way, other)

    async def _cut_clients(self, fault: Fault) -> None:
        side = list(fault.order[: fault.side])
        names = " ".join(self._servers[number].name for number in side)
        await self._break(fault, f"cut clients from {names}", self._wires.cut_clients, side)

    async def _lose(self, fault: Fault) -> None:
        text = f"lose and delay {fault.loss:.0%} of everything"
        await self._break(fault, text, self._wires.lose, fault.loss)

    async def _break(
        self, fault: Fault, text: str, action: Callable[..., None], *arguments: object
    ) -> None:
        self._say(f"{text}, for {fault.lasts_us // 1_000} ms")
        self.counts[fault.kind] += 1
        try:
            await anyio.to_thread.run_sync(action, *arguments)
            await _sleep_us(fault.lasts_us)
        finally:
            await self._heal_wires()

    async def _heal_wires(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._wires.heal)

    # --- whom -------------------------------------------------------------------------------------

    async def _victim(self, fault: Fault) -> ServerProcess | None:
        """The leader, or the first running server in the fault's order; None: nobody is free."""
        if fault.at_leader:
            return await self._leader()
        for number in fault.order:
            server = self._servers[number]
            if server.running and server.name not in self._held:
                return server
        return None

    async def _leader(self) -> ServerProcess | None:
        """Who leads now; None when somebody holds it. Raises ServerFailed when nobody does."""
        leader = await self._processes.leader()
        return None if leader.name in self._held else leader

    def _number(self, server: ServerProcess | None) -> int:
        return 0 if server is None else self._servers.index(server)

    async def _some_command(self) -> None:
        """Wait until a command that began to be recorded is answered: service goes on.

        Raises ServerFailed when there is none for far longer than any fault lasts.
        """
        before = self._recorder.ordered
        deadline = now_us() + int(_READY_S * 1_000_000)
        while self._recorder.ordered == before:
            if now_us() > deadline:
                raise ServerFailed(f"no command has been answered for {_READY_S:.0f} s")
            await anyio.sleep(0.001)

    @contextmanager
    def _hold(self, *servers: ServerProcess) -> Iterator[None]:
        for server in servers:
            self._held[server.name] = None
        try:
            yield
        finally:
            for server in servers:
                self._held.pop(server.name, None)


async def _sleep_us(duration_us: int) -> None:
    await anyio.sleep(duration_us / 1_000_000)
