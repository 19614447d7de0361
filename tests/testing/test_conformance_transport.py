"""The built-in transports pass their suite, and for every property there is one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

import anyio
import pytest
from attrs import evolve

from distinv.config import FaultSettings
from distinv.errors import ConfigError
from distinv.testing import TransportSuite
from distinv.transport.api import (
    Address,
    Datagram,
    Transport,
    TransportContext,
    TransportFactory,
)
from distinv.transport.faulty import faulty
from distinv.transport.memory import MemoryNetwork
from distinv.transport.udp import open_udp

LOSSY = FaultSettings(loss=0.2, duplicate=0.1, delay=0.2, seed=1)

TestUdp = TransportSuite.of(open_udp)
TestFaulty = TransportSuite.of(faulty(open_udp))
TestLossy = TransportSuite.of(faulty(MemoryNetwork().open_transport, LOSSY))
TestMemory = TransportSuite.of(MemoryNetwork().open_transport)


async def nothing() -> list[Datagram]:
    await anyio.sleep_forever()
    return []


class Spoilt:
    """A good transport, to be spoilt."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner

    @property
    def address(self) -> Address:
        return self.inner.address

    @property
    def payload_bytes(self) -> int:
        return self.inner.payload_bytes

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        self.inner.send(datagrams)

    async def receive(self) -> list[Datagram]:
        return await self.inner.receive()

    async def probe(self, address: Address) -> bool:
        return await self.inner.probe(address)

    async def aclose(self) -> None:
        await self.inner.aclose()


def making(kind: Callable[[Transport], Transport]) -> TransportFactory:
    async def make(context: TransportContext) -> Transport:
        return kind(await open_udp(context))

    return make


class Nameless(Spoilt):
    @property
    def address(self) -> Address:
        return ("127.0.0.1", 0)


class Clipping(Spoilt):
    """Long datagrams lose their end."""

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        self.inner.send((address, data[:9_000]) for address, data in datagrams)


class Tiny(Spoilt):
    @property
    def payload_bytes(self) -> int:
        return 100


class Masked(Spoilt):
    """Everything seems to come from one place."""

    async def receive(self) -> list[Datagram]:
        return [(data, ("127.0.0.1", 9)) for data, _ in await self.inner.receive()]


class Loud(Spoilt):
    """What is for one goes to all whom it has ever been told of."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner)
        self.known: dict[Address, None] = {}

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        pairs = list(datagrams)
        self.known.update((address, None) for address, _ in pairs)
        self.inner.send((address, data) for address in self.known for _, data in pairs)


class Greedy(Spoilt):
    """Takes all that there is, at once."""

    async def receive(self) -> list[Datagram]:
        batch = await self.inner.receive()
        with anyio.move_on_after(0.02):
            while True:
                batch += await self.inner.receive()
        return batch


class Frugal(Spoilt):
    """Sends ten datagrams of a call."""

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        self.inner.send(list(datagrams)[:10])


class Nervous(Spoilt):
    """Returns when there is nothing, once it has heard something."""

    heard = False

    async def receive(self) -> list[Datagram]:
        if self.heard:
            return []
        batch = await self.inner.receive()
        self.heard = True
        return batch


class Fussy(Spoilt):
    """Raises for an address that is none."""

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        for address, data in datagrams:
            if not 0 < address[1] < 65_536:
                raise ValueError(address)
            self.inner.send([(address, data)])


class Easy(Spoilt):
    """Gives up a call in which one datagram cannot be sent."""

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        pairs = list(datagrams)
        if all(len(data) < 65_000 for _, data in pairs) and not getattr(self, "upset", False):
            self.inner.send(pairs)
        else:
            self.upset = True


class Careless(Spoilt):
    """Takes datagrams off the queue, and then waits."""

    async def receive(self) -> list[Datagram]:
        with anyio.CancelScope(shield=True):
            batch: list[Datagram] = []
            with anyio.move_on_after(0.05):
                batch = await self.inner.receive()
        await anyio.lowlevel.checkpoint()
        return batch or await self.inner.receive()


class Deafened(Spoilt):
    """Hears nothing more once a wait was cancelled."""

    async def receive(self) -> list[Datagram]:
        try:
            return await self.inner.receive()
        except anyio.get_cancelled_exc_class():
            self.inner = Silence(self.inner)
            raise


class Silence(Spoilt):
    async def receive(self) -> list[Datagram]:
        return await nothing()


class Patient(Spoilt):
    """Goes on waiting when it is closed."""

    async def receive(self) -> list[Datagram]:
        try:
            return await self.inner.receive()
        except anyio.ClosedResourceError:
            return await nothing()


class Broken(Spoilt):
    """Says in its own way that it is closed."""

    async def receive(self) -> list[Datagram]:
        try:
            return await self.inner.receive()
        except anyio.ClosedResourceError:
            raise OSError("closed") from None


class Once(Spoilt):
    """Is closed once."""

    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await self.inner.aclose()


class Gloomy(Spoilt):
    """Takes everybody for dead."""

    async def probe(self, address: Address) -> bool:
        return True


class Shy(Spoilt):
    """Does not know what to say of those it cannot reach."""

    async def probe(self, address: Address) -> bool:
        if not 0 < address[1] < 65_536:
            raise OverflowError
        return await self.inner.probe(address)


async def yielding(context: TransportContext) -> Transport:
    """Takes another port for an explicit one, too."""
    try:
        return await open_udp(context)
    except ConfigError:
        return await open_udp(TransportContext(evolve(context.network, port=0), context.server))


async def wordy(context: TransportContext) -> Transport:
    try:
        return await open_udp(context)
    except ConfigError as error:
        raise ConfigError(f"{error}\nIt is in use.") from error


async def stubborn(context: TransportContext) -> Transport:
    """Wants the port that it was given."""
    explicit = evolve(context.network, port_explicit=True)
    return await open_udp(TransportContext(explicit, context.server))


class Lingering(Spoilt):
    """Keeps its port."""

    kept: ClassVar[list[Transport]] = []

    async def aclose(self) -> None:
        self.kept.append(self.inner)
        await anyio.lowlevel.checkpoint()


REJECTED: list[tuple[str, TransportFactory, dict[str, object]]] = [
    ("test_each_has_an_address_of_its_own", making(Nameless), {}),
    ("test_an_explicit_port_that_is_in_use_is_an_error", yielding, {}),
    ("test_an_explicit_port_that_is_in_use_is_an_error", wordy, {}),
    ("test_the_default_port_gives_way", stubborn, {}),
    ("test_a_closed_one_leaves_its_port", making(Lingering), {}),
    ("test_a_datagram_arrives_intact_and_from_its_sender", making(Clipping), {"share": 0.5}),
    ("test_a_datagram_arrives_intact_and_from_its_sender", making(Masked), {"share": 0.0}),
    ("test_a_datagram_arrives_intact_and_from_its_sender", making(Tiny), {"share": 0.0}),
    ("test_three_hear_what_is_meant_for_them", making(Loud), {}),
    ("test_a_burst_is_received_in_batches_of_bounded_size", making(Greedy), {}),
    ("test_a_burst_is_received_in_batches_of_bounded_size", making(Frugal), {}),
    ("test_receive_returns_at_least_one", making(Nervous), {}),
    (
        "test_what_cannot_be_sent_is_lost_and_nothing_is_raised",
        making(Fussy),
        {"target": ("127.0.0.1", 70_000)},
    ),
    (
        "test_what_cannot_be_sent_is_lost_and_nothing_is_raised",
        making(Easy),
        {"target": ("127.0.0.1", 9)},
    ),
    ("test_a_wait_that_is_cancelled_loses_nothing", making(Deafened), {}),
    ("test_what_is_there_survives_a_cancelled_wait", making(Careless), {}),
    ("test_closing_ends_the_wait", making(Broken), {}),
    ("test_closing_ends_the_wait", making(Patient), {}),
    ("test_a_closed_one_stays_closed", making(Once), {}),
    ("test_a_probe_never_takes_the_living_for_dead", making(Gloomy), {}),
    ("test_a_probe_of_nobody_answers", making(Shy), {}),
]


REJECTIONS = (
    AssertionError,
    pytest.fail.Exception,
    ConfigError,
    OverflowError,
    RuntimeError,
    ValueError,
)
"""What the suite says, or the broken one itself."""


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "factory", "arguments"), REJECTED)
async def test_a_broken_transport_is_rejected(
    name: str,
    factory: TransportFactory,
    arguments: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distinv.testing.conformance.transport.ATTEMPTS", 4)
    monkeypatch.setattr("distinv.testing.conformance.transport.ATTEMPT_S", 0.05)
    monkeypatch.setattr("distinv.testing.conformance.transport.DEADLINE_S", 0.5)
    with pytest.raises(REJECTIONS):
        await getattr(TransportSuite.of(factory)(), name)(**arguments)
    while Lingering.kept:
        await Lingering.kept.pop().aclose()


def test_every_property_rejects_something() -> None:
    names = {name for name in dir(TransportSuite) if name.startswith("test_")}
    assert names == {name for name, _, _ in REJECTED}
