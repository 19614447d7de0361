"""Servers that go and come again: with nothing, after they left or lost their disk; or one by one.

One at a time, and each until the voters are as many as they can be again: who loses more disks
than the others hold copies loses what is on them, and no protocol can help that.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

import anyio

from distinv.config import Limits
from distinv.core.birth import odd_voters
from distinv.entry import NodeId
from distinv.errors import DistinvError
from distinv.testing.processes import ServerFailed, ServerProcess, ServerProcesses, ServerStatus

_POLL_S = 0.05
_PATIENCE_S = 60.0
"""Far longer than it takes, with leaders that are killed all the time."""
_AGAIN_S = 0.5


class Members:
    """What the nemesis does to who belongs to the cluster. All waits raise ServerFailed."""

    def __init__(self, servers: ServerProcesses) -> None:
        self._processes = servers
        self._leaving: tuple[ServerProcess, NodeId] | None = None
        """It was asked to leave, and has not come again yet."""
        self._stopping: ServerProcess | None = None
        """It was told to stop, and has not been started again yet."""

    async def leave(self, server: ServerProcess, node: NodeId) -> None:
        """It gives its vote up and stops by itself; it comes again with nothing."""
        self._leaving = server, node
        await self._dismiss(server, node)
        await self._come_again(server)

    @property
    def unfinished(self) -> tuple[ServerProcess, ...]:
        """Those of whom `finish` takes care."""
        leaving = () if self._leaving is None else (self._leaving[0],)
        return leaving if self._stopping is None else (*leaving, self._stopping)

    async def finish(self) -> None:
        """Whoever is about to leave, or to stop, when everything heals does so, and comes again."""
        if self._stopping is not None:
            await self._stopping.stop()
            self._stopping.launch()
            self._stopping = None
        if self._leaving is not None:
            server, node = self._leaving
            await self._dismiss(server, node)
            await self._come_again(server)

    async def _come_again(self, server: ServerProcess) -> None:
        status = await server.wait_ended(_PATIENCE_S)
        if status != 0:
            raise ServerFailed(f"{server.name} left with status {status}, not in good order")
        self._begin_anew(server)
        self._leaving = None

    async def lose_disk(self, server: ServerProcess) -> None:
        """Killed, and what it has written is gone."""
        await server.kill()
        self._begin_anew(server)

    def _begin_anew(self, server: ServerProcess) -> None:
        shutil.rmtree(server.data_dir)
        server.launch()

    async def restart(self, server: ServerProcess) -> None:
        """SIGTERM, and again; it comes as far as the leader was when it was stopped."""
        await server.wait_ready()  # before that nothing in it heeds a signal
        leader = await self._leader()
        self._stopping = server
        status = await server.stop()
        if status != 0:
            raise ServerFailed(f"{server.name} stopped with status {status}, not in good order")
        server.launch()
        self._stopping = None
        await self._until(
            lambda: self._has_come_to(server, leader.applied),
            f"{server.name} has not caught up after its restart",
        )

    async def _has_come_to(self, server: ServerProcess, index: int) -> bool:
        statuses = await self._processes.ask()
        return any(each.name == server.name and each.applied >= index for each in statuses)

    # --- who votes ----------------------------------------------------------------------------

    async def node_of(self, server: ServerProcess) -> NodeId:
        return (await self._status(server)).node

    async def can_spare_a_disk(self) -> bool:
        """With fewer voters it could be the only one that has everything."""
        return len((await self._leader()).voters) >= Limits().voters_min

    async def wait_settled(self, gone: NodeId) -> None:
        """Until `gone` does not vote any more, and as many as can."""
        full = odd_voters(len(self._processes.servers), Limits().voters_max)

        async def settled() -> bool:
            voters = (await self._leader()).voters
            return gone not in voters and len(voters) == full

        await self._until(settled, f"there are no {full} voters again")

    async def _leader(self) -> ServerStatus:
        found: list[ServerStatus] = []

        async def look() -> bool:
            found[:] = [each for each in await self._processes.ask() if each.role == "leader"]
            return bool(found)

        await self._until(look, "there is no leader")
        return max(found, key=lambda status: status.term)

    async def _status(self, server: ServerProcess) -> ServerStatus:
        found: list[ServerStatus] = []

        async def look() -> bool:
            found[:] = [each for each in await self._processes.ask() if each.name == server.name]
            return bool(found)

        await self._until(look, f"{server.name} does not say what it is")
        return found[0]

    # --- patience -----------------------------------------------------------------------------

    async def _dismiss(self, server: ServerProcess, node: NodeId) -> None:
        """Leaders come and go meanwhile: what one of them did not do the next one is asked.

        Whoever did it may be gone before it could say so; then the server stops all the same.
        """
        last = ""
        with anyio.move_on_after(_PATIENCE_S):
            while server.running:
                try:
                    await self._processes.watcher.dismiss_server(node, confirmed=True)
                    return
                except DistinvError as error:
                    last = str(error)
                await anyio.sleep(_AGAIN_S)
            return
        raise ServerFailed(f"no leader lets {server.name} go: {last}")

    async def _until(self, condition: Callable[[], Awaitable[bool]], complaint: str) -> None:
        with anyio.move_on_after(_PATIENCE_S):
            while not await condition():
                await anyio.sleep(_POLL_S)
            return
        raise ServerFailed(f"{complaint} after {_PATIENCE_S:.0f} s")
