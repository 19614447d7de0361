"""The loop of a client: it drives the session in turns, and hands out how calls ended.

Two tasks take turns, and each turn lies between two awaits: one task whenever datagrams have
arrived, the other when callers have come or something is due. Callers that come together share
one turn, and with it its datagrams.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup
from attrs import define

from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.errors import PluginError
from distinv.transport.api import Address, Transport
from distinv.wire.events import Notice

LOGGER = logging.getLogger("distinv.client")

SECOND_US = 1_000_000
_TIMEOUT_US_MAX = 10 * 365 * 24 * 3600 * SECOND_US


def monotonic_us() -> int:
    """Microseconds of the clock that never goes back."""
    return time.monotonic_ns() // 1_000


def deadline_after(timeout: float) -> int:
    """The time `timeout` seconds from now, at most ten years."""
    return monotonic_us() + int(min(timeout * SECOND_US, _TIMEOUT_US_MAX))


NOTICED_MAX = 20


@define(eq=False)
class _Waiter:
    """Somebody waits for the end of a call."""

    ended: anyio.Event
    completion: Completion | None = None


class Driver:
    """Runs one session on one transport. Belongs to one event loop."""

    def __init__(self, session: ClientSession, transport: Transport, group: TaskGroup) -> None:
        self.session = session
        self.failure: Exception | None = None
        """Why the loop has ended, when it was not stopped."""
        self.noticed: dict[Notice, None] = {}
        """What a person should know, the last of it."""
        self._transport = transport
        self._group = group
        self._waiters: dict[int, _Waiter] = {}
        self._probing: dict[Address, None] = {}
        self._wake = anyio.Event()
        self._due = 0
        """When the session has something to do by itself."""
        self._sleeps_until = 0

    def start(self) -> None:
        """Begin to look for servers."""
        self._group.start_soon(self._guard, self._listen)
        self._group.start_soon(self._guard, self._tick)

    def stop(self) -> None:
        """End every open call. The tasks are the group's to cancel."""
        self.session.end_all(monotonic_us())
        self._hand_out()

    async def end_of(self, call: int) -> Completion:
        """Wait for the end of one of the session's calls; when cancelled, detach from it.

        Raises the error that it ended with.
        """
        waiter = self._waiters[call] = _Waiter(anyio.Event())
        self._wake.set()
        try:
            await waiter.ended.wait()
        finally:
            if self._waiters.pop(call, None) is not None:
                self.session.detach(call)
                self._wake.set()
        completion = waiter.completion
        assert completion is not None
        if completion.error is not None:
            raise completion.error
        return completion

    # --- tasks --------------------------------------------------------------------------------

    async def _guard(self, task: Callable[[], Awaitable[None]]) -> None:
        """A transport that fails ends the calls, and not the application around them."""
        try:
            await task()
        except Exception as error:
            self.failure = PluginError(f"the client's transport failed: {error!r}")
            self.failure.__cause__ = error
            LOGGER.error("%s", self.failure)
            self.stop()

    async def _listen(self) -> None:
        receive, session = self._transport.receive, self.session
        while True:
            batch = await receive()
            now = monotonic_us()
            for data, address in batch:
                session.receive(data, address, now)
            self._turn(now)
            if self._due < self._sleeps_until:
                self._wake.set()

    async def _tick(self) -> None:
        while True:
            if self._wake.is_set():
                self._wake = anyio.Event()
            now = monotonic_us()
            if now >= self._due:
                self.session.on_deadline(now)
            self._turn(now)
            self._sleeps_until = self._due
            with anyio.move_on_after(max(0, self._due - now) / SECOND_US):
                await self._wake.wait()

    def _turn(self, now: int) -> None:
        """Send what is to be sent, and hand out what has ended."""
        session = self.session
        datagrams = session.flush(now)
        if datagrams:
            self._transport.send(datagrams)
        self._hand_out()
        for address in session.probes():
            if address not in self._probing:
                self._probing[address] = None
                self._group.start_soon(self._probe, address)
        for notice in session.take_notices():
            self._note(notice)
        self._due = session.deadline()

    def _note(self, notice: Notice) -> None:
        """Say it once: it goes on for as long as it is so."""
        if notice in self.noticed:
            return
        host, port = notice.address
        LOGGER.warning("%s:%s: %s", host, port, notice.detail or notice.kind)
        self.noticed[notice] = None
        if len(self.noticed) > NOTICED_MAX:
            del self.noticed[next(iter(self.noticed))]

    def _hand_out(self) -> None:
        for completion in self.session.take_completions():
            waiter = self._waiters.pop(completion.call, None)
            if waiter is not None:
                waiter.completion = completion
                waiter.ended.set()

    async def _probe(self, address: Address) -> None:
        try:
            if await self._transport.probe(address):
                self.session.on_refused(address, monotonic_us())
                self._wake.set()
        finally:
            del self._probing[address]
