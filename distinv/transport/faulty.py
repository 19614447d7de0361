"""A transport that loses, repeats and delays what it sends, as a bad network would.

It wraps any other. By name it wraps `udp` and takes its faults from `Network.faults`; in a
program the faults can be given with the factory, together with a `Cuts` to pull cables::

    cuts = Cuts()
    factory = faulty(open_udp, FaultSettings(loss=0.1, seed=7), cuts)
    Cluster("shop", transport=factory, …)
    cuts.cut(("127.0.0.1", 4748))

Every datagram is judged by itself, beacons included: they are sent by the transport like
anything else.

From another process the faults are steered through a file that the transport watches, given as
`faulty(…, steering=path)` or named by the environment's DISTINV_FAULTS. It is one JSON object,
replaced atomically (`distinv.testing.steering.FaultControl` does it); each name may be missing::

    {"loss": 0.1, "duplicate": 0.01, "delay": 0.2, "delay_max_us": 20000,
     "cut": ["127.0.0.1:4748"], "cut_to": [], "cut_from": ["*"]}

What it does not name is as it was at the start. The file is looked at before datagrams are
judged, not more often than every 10 ms: a change holds for all datagrams from then on.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
from attrs import define, evolve, frozen

from distinv.config import FaultSettings, Limits
from distinv.errors import ConfigError
from distinv.transport.api import (
    Address,
    Datagram,
    Transport,
    TransportContext,
    TransportFactory,
)

LOGGER = logging.getLogger("distinv.transport")

STEERING_VARIABLE = "DISTINV_FAULTS"
"""The environment's variable that names the steering file of a transport that is given none."""
EVERYBODY: Address = ("*", 0)
"""Stands for every address in `Cuts`, written "*" in a steering file."""

_HELD_MAX = Limits().inbox_datagrams
_LOOK_S = 0.01
"""How often the steering file is looked at: below any time-out of the protocol."""
_STEERED = ("loss", "duplicate", "delay", "delay_max_us")
_CUTS = ("cut", "cut_to", "cut_from")


class Cuts:
    """Whom nothing reaches, and of whom nothing is heard, by those who hold this."""

    def __init__(self) -> None:
        self._to: dict[Address, None] = {}
        self._from: dict[Address, None] = {}

    def cut(self, address: Address) -> None:
        """Cut both directions."""
        self.cut_to(address)
        self.cut_from(address)

    def cut_to(self, address: Address) -> None:
        """Nothing is sent there any more; what comes from there is heard."""
        self._to[address] = None

    def cut_from(self, address: Address) -> None:
        """Nothing is heard from there any more; what is sent there arrives."""
        self._from[address] = None

    def heal(self, address: Address | None = None) -> None:
        """Mend one address, or all of them."""
        for cut in (self._to, self._from):
            if address is None:
                cut.clear()
            else:
                cut.pop(address, None)

    def blocks_to(self, address: Address) -> bool:
        """Whether what is sent to `address` is lost."""
        return bool(self._to) and (address in self._to or EVERYBODY in self._to)

    def blocks_from(self, address: Address) -> bool:
        """Whether what comes from `address` is lost."""
        return bool(self._from) and (address in self._from or EVERYBODY in self._from)


class SteeringFile:
    """What a steering file says at the moment. A missing file says nothing."""

    def __init__(self, path: str | os.PathLike[str], usual: FaultSettings) -> None:
        """`usual` holds for what the file does not name. Raises ConfigError for a wrong file."""
        self._path = Path(path)
        self._usual = usual
        self._look_at = 0.0
        self._version: tuple[int, ...] = ()
        self.settings = usual
        self.cuts = Cuts()
        self._version = self._seen()
        self._read()

    def look(self) -> bool:
        """Read the file again when it has changed; True when it had.

        A wrong one is logged, and what was said before goes on.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_S
        version = self._seen()
        if version == self._version:
            return False
        self._version = version
        try:
            self._read()
        except ConfigError as error:
            LOGGER.warning("the faults stay as they were: %s", error)
            return False
        return True

    def _seen(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> None:
        try:
            text = self._path.read_text("utf-8")
        except FileNotFoundError:
            text = "{}"
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._path} cannot be read: {error}") from error
        try:
            self.settings, self.cuts = parse_steering(text, self._usual)
        except ConfigError as error:
            raise ConfigError(f"{self._path}: {error}") from None


def parse_steering(text: str, usual: FaultSettings) -> tuple[FaultSettings, Cuts]:
    """What a steering file says. Raises ConfigError, in words for whoever wrote it."""
    try:
        said = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"faults are one JSON object, and this is none: {error}") from None
    if not isinstance(said, dict):
        raise ConfigError('faults are one JSON object, such as {"loss": 0.1}')
    for name in said:
        if name not in (*_STEERED, *_CUTS):
            names = ", ".join((*_STEERED, *_CUTS))
            raise ConfigError(f"there is no fault {name!r}; choose from {names}")
    settings = evolve(usual, **{name: said[name] for name in _STEERED if name in said})
    check_faults(settings)
    return settings, _cuts_of(said)


def _cuts_of(said: Mapping[str, Any]) -> Cuts:
    cuts = Cuts()
    for name in _CUTS:
        addresses = said.get(name, [])
        if not isinstance(addresses, list):
            raise ConfigError(f'{name} is a list of addresses, such as ["10.0.0.5:4747"]')
        for address in addresses:
            getattr(cuts, name)(parse_cut(name, address))
    return cuts


def parse_cut(name: str, text: object) -> Address:
    """Read "HOST:PORT" or "*". Raises ConfigError that begins with `name`."""
    if text == EVERYBODY[0]:
        return EVERYBODY
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ConfigError(f'{name}: {text!r} is no address: give "HOST:PORT", or "*" for all')
    return (host, int(port))


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

    def __init__(
        self,
        inner: Transport,
        settings: FaultSettings,
        cuts: Cuts,
        steering: SteeringFile | None = None,
    ) -> None:
        self._inner = inner
        self._settings = settings
        self._cuts = cuts
        """Pulled in this process; what another one pulls is `_steering`'s."""
        self._steering = steering
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
        self._steer()
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
            self._steer()
            heard = [datagram for datagram in batch if not self._hears_nothing_of(datagram[1])]
            self.stats.cut += len(batch) - len(heard)
            if heard:
                return heard

    async def probe(self, address: Address) -> bool:
        self._steer()
        if self._reaches_nothing_at(address) or self._hears_nothing_of(address):
            await anyio.lowlevel.checkpoint()
            return False  # the question does not get there, or the answer not back
        return await self._inner.probe(address)

    async def aclose(self) -> None:
        self._held.clear()
        await self._inner.aclose()

    def _steer(self) -> None:
        """Take up what the steering file says now."""
        steering = self._steering
        if steering is not None and steering.look():
            self._settings = steering.settings

    def _reaches_nothing_at(self, address: Address) -> bool:
        steering = self._steering
        return self._cuts.blocks_to(address) or (
            steering is not None and steering.cuts.blocks_to(address)
        )

    def _hears_nothing_of(self, address: Address) -> bool:
        steering = self._steering
        return self._cuts.blocks_from(address) or (
            steering is not None and steering.cuts.blocks_from(address)
        )

    def _copies(self, address: Address) -> int:
        """How many copies of the next datagram to `address` leave: 0, 1 or 2."""
        if self._reaches_nothing_at(address):
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
    steering: str | os.PathLike[str] | None

    async def __call__(self, context: TransportContext) -> FaultyTransport:
        settings = self.settings or context.network.faults
        check_faults(settings)
        path = self.steering or os.environ.get(STEERING_VARIABLE)
        steering = SteeringFile(path, settings) if path else None
        if steering is not None:
            settings = steering.settings
        return FaultyTransport(await self.inner(context), settings, self.cuts, steering)


def faulty(
    inner: TransportFactory,
    settings: FaultSettings | None = None,
    cuts: Cuts | None = None,
    steering: str | os.PathLike[str] | None = None,
) -> FaultyFactory:
    """A factory of transports like `inner`'s with these faults, `Network.faults` by default.

    `cuts` is shared by all transports it makes. `steering` is a file by which another process
    steers the faults, see above; by default the one that the environment's DISTINV_FAULTS
    names, if any. The factory raises ConfigError for a probability outside 0..1 and for a
    wrong file, besides what `inner` raises.
    """
    if settings is not None:
        check_faults(settings)
    return FaultyFactory(inner, settings, Cuts() if cuts is None else cuts, steering)


def check_faults(settings: FaultSettings) -> None:
    """Raises ConfigError for what is no probability, or no time."""
    for name in ("loss", "duplicate", "delay"):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"{name} is a probability, from 0 to 1, and {value!r} is none")
    longest = settings.delay_max_us
    if type(longest) is not int or longest < 1:
        raise ConfigError(f"delay_max_us is {longest!r}, and must be a whole number of at least 1")
