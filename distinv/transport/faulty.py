"""A transport that loses, repeats and delays what it sends, as a bad network would.

It wraps any other. By name it wraps `udp` and takes its faults from `Network.faults`; in a
program the faults can be given with the factory, together with a `Cuts` to pull cables::

    cuts = Cuts()
    factory = faulty(open_udp, FaultSettings(loss=0.1, seed=7), cuts)
    Cluster("shop", transport=factory, …)
    cuts.cut(("127.0.0.1", 4748))

Every datagram is judged by itself, beacons included: they are sent by the transport like
anything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from random import Random

import anyio
import anyio.lowlevel
from attrs import define, frozen

from distinv.config import FaultSettings, Limits
from distinv.errors import ConfigError
from distinv.transport.api import (
    Address,
    Datagram,
    Transport,
    TransportContext,
    TransportFactory,
)

_HELD_MAX = Limits().inbox_datagrams


class Cuts:
    """Which addresses cannot be reached, and do not reach, whoever holds this. Shared freely."""

    def __init__(self) -> None:
        self._addresses: dict[Address, None] = {}

    def cut(self, address: Address) -> None:
        self._addresses[address] = None

    def heal(self, address: Address | None = None) -> None:
        """Mend one address, or all of them."""
        if address is None:
            self._addresses.clear()
        else:
            self._addresses.pop(address, None)

    def __contains__(self, address: Address) -> bool:
        return address in self._addresses


@define
class FaultStats:
    """What was done to the datagrams so far."""

    passed: int = 0
    lost: int = 0
    duplicated: int = 0
    delayed: int = 0
    cut: int = 0


@frozen(order=True)
class _Held:
    due: float
    order: int
    address: Address
    data: bytes


class FaultyTransport:
    """`Transport` around another. Made by the factory that `faulty` returns."""

    def __init__(self, inner: Transport, settings: FaultSettings, cuts: Cuts) -> None:
        self._inner = inner
        self._settings = settings
        self._cuts = cuts
        # Transports of one process and one seed must not lose the same datagrams.
        seed = settings.seed
        self._random = Random() if seed is None else Random(f"{seed} {inner.address}")
        self._held: list[_Held] = []
        self._held_count = 0
        self._waiting: anyio.CancelScope | None = None
        self.stats = FaultStats()

    @property
    def address(self) -> Address:
        return self._inner.address

    @property
    def payload_bytes(self) -> int:
        return self._inner.payload_bytes

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        now: list[tuple[Address, bytes]] = []
        for address, data in datagrams:
            copies = self._copies(address)
            if copies and self._happens(self._settings.delay) and len(self._held) < _HELD_MAX:
                self._hold(address, data)
                copies -= 1
            now.extend([(address, data)] * copies)
        if now:
            self._inner.send(now)

    async def receive(self) -> list[Datagram]:
        """What the inner transport receives; meanwhile what was held back is sent when due."""
        while True:
            batch: list[Datagram] = []
            with anyio.CancelScope(deadline=self._release()) as self._waiting:
                batch = await self._inner.receive()
            self._waiting = None
            heard = [datagram for datagram in batch if datagram[1] not in self._cuts]
            self.stats.cut += len(batch) - len(heard)
            if heard:
                return heard

    async def probe(self, address: Address) -> bool:
        if address in self._cuts:
            await anyio.lowlevel.checkpoint()
            return False  # the question does not get there, or the answer not back
        return await self._inner.probe(address)

    async def aclose(self) -> None:
        self._held.clear()
        await self._inner.aclose()

    def _copies(self, address: Address) -> int:
        """How many copies of the next datagram to `address` leave: 0, 1 or 2."""
        if address in self._cuts:
            self.stats.cut += 1
            return 0
        if self._happens(self._settings.loss):
            self.stats.lost += 1
            return 0
        self.stats.passed += 1
        if self._happens(self._settings.duplicate):
            self.stats.duplicated += 1
            return 2
        return 1

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def _hold(self, address: Address, data: bytes) -> None:
        self.stats.delayed += 1
        self._held_count += 1
        wait_us = self._random.randrange(1, self._settings.delay_max_us + 1)
        due = anyio.current_time() + wait_us / 1_000_000
        heappush(self._held, _Held(due, self._held_count, address, data))
        if self._waiting is not None:
            self._waiting.deadline = min(self._waiting.deadline, due)

    def _release(self) -> float:
        """Send what is due; returns when the next one is, in the event loop's seconds."""
        now = anyio.current_time()
        while self._held and self._held[0].due <= now:
            held = heappop(self._held)
            self._inner.send([(held.address, held.data)])
        return self._held[0].due if self._held else float("inf")


@frozen
class FaultyFactory:
    """A `TransportFactory`. See `faulty`."""

    inner: TransportFactory
    settings: FaultSettings | None
    cuts: Cuts

    async def __call__(self, context: TransportContext) -> FaultyTransport:
        settings = self.settings or context.network.faults
        _check(settings)
        return FaultyTransport(await self.inner(context), settings, self.cuts)


def faulty(
    inner: TransportFactory, settings: FaultSettings | None = None, cuts: Cuts | None = None
) -> FaultyFactory:
    """A factory of transports like `inner`'s with these faults, `Network.faults` by default.

    `cuts` is shared by all transports it makes. The factory raises ConfigError for a
    probability outside 0..1, besides what `inner` raises.
    """
    if settings is not None:
        _check(settings)
    return FaultyFactory(inner, settings, Cuts() if cuts is None else cuts)


def _check(settings: FaultSettings) -> None:
    for name in ("loss", "duplicate", "delay"):
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} is a probability, from 0 to 1, and {value!r} is none")
    if settings.delay_max_us < 1:
        raise ConfigError(f"delay_max_us is {settings.delay_max_us}, and must be at least 1")
