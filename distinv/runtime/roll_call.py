"""The window in which a server asks whether another process has its identity, and no more.

What arrives meanwhile and is no answer is dropped: it was sent to an earlier run of this server,
or to everybody, and is repeated. A transport or discovery that fails is the driver's affair: it
meets the same failure next, and says it.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import anyio

from distinv.discovery.api import Discovery
from distinv.runtime.driver import monotonic_us
from distinv.server.roll_call import RollCall
from distinv.transport.api import Datagram, Transport

_SECOND_US = 1_000_000


async def call_the_roll(roll: RollCall, transport: Transport, discovery: Discovery) -> None:
    """Ask, and hear the answers. Raises IdentityInUse when this server must not start."""
    caller = _Caller(roll, transport, discovery)
    async with anyio.create_task_group() as group:
        group.start_soon(caller.read_transport)
        group.start_soon(caller.read_discovery)
        await caller.call()
        group.cancel_scope.cancel()
    if roll.refusal is not None:
        raise roll.refusal


class _Caller:
    def __init__(self, roll: RollCall, transport: Transport, discovery: Discovery) -> None:
        self._roll = roll
        self._transport = transport
        self._discovery = discovery
        self._inbox: deque[Datagram] = deque()
        self._news = anyio.Event()

    async def read_transport(self) -> None:
        with suppress(Exception):
            while True:
                for datagram in await self._transport.receive():
                    self._deliver(datagram)

    async def read_discovery(self) -> None:
        with suppress(Exception):
            await self._discovery.listen(self._deliver)

    def _deliver(self, datagram: Datagram) -> None:
        self._inbox.append(datagram)
        self._news.set()

    async def call(self) -> None:
        """Until the window is over, or an answer has come that counts."""
        roll = self._roll
        while True:
            now = monotonic_us()
            while self._inbox:
                data, address = self._inbox.popleft()
                roll.receive(data, address, now)
            roll.on_deadline(now)
            self._transport.send(roll.flush(now))
            if roll.over(now):
                return
            self._news = anyio.Event()
            with anyio.move_on_after(max(0, roll.deadline() - now) / _SECOND_US):
                await self._news.wait()
