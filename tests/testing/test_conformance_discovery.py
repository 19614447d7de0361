"""The built-in discoveries pass their suite, and for every property there is one that does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import ClassVar

import anyio
import pytest

from distinv.discovery.api import Discovery, DiscoveryContext, DiscoveryFactory
from distinv.discovery.beacon import BeaconDiscovery, open_beacon
from distinv.discovery.static import open_static
from distinv.testing import DiscoverySuite
from distinv.transport.api import Address, Datagram
from distinv.transport.memory import MemoryNetwork

_network = MemoryNetwork()

TestBeacon = DiscoverySuite.of(open_beacon)
TestStatic = DiscoverySuite.of(open_static, given=True)
TestMemory = DiscoverySuite.of(_network.open_discovery, transport=_network.open_transport)
TestMemoryWithServers = DiscoverySuite.of(
    _network.open_discovery, transport=_network.open_transport, given=True
)

Deliver = Callable[[Datagram], None]


class Spoilt:
    """A good discovery, to be spoilt."""

    def __init__(self, inner: BeaconDiscovery, context: DiscoveryContext) -> None:
        self.inner = inner
        self.context = context

    def targets(self) -> Sequence[Address]:
        return self.inner.targets()

    async def listen(self, deliver: Deliver) -> None:
        await self.inner.listen(deliver)

    async def aclose(self) -> None:
        await self.inner.aclose()


def making(kind: Callable[[BeaconDiscovery, DiscoveryContext], Discovery]) -> DiscoveryFactory:
    async def make(context: DiscoveryContext) -> Discovery:
        return kind(await open_beacon(context), context)

    return make


class Fleeting(Spoilt):
    """Has its targets once."""

    asked = False

    def targets(self) -> Sequence[Address]:
        before, self.asked = self.asked, True
        return () if before else self.inner.targets()


class Textual(Spoilt):
    def targets(self) -> Sequence[Address]:
        return [(host, str(port)) for host, port in self.inner.targets()]  # type: ignore[misc]


class Outgoing(Spoilt):
    """Announces to the neighbours, key or not."""

    def targets(self) -> Sequence[Address]:
        return [*self.inner.targets(), ("192.168.255.255", self.context.network.beacon_port)]


class Deaf(Spoilt):
    async def listen(self, deliver: Deliver) -> None:
        await anyio.sleep_forever()


class Clipping(Spoilt):
    async def listen(self, deliver: Deliver) -> None:
        await self.inner.listen(lambda datagram: deliver((datagram[0][:500], datagram[1])))


class Masked(Spoilt):
    """Tells what was said, but not by whom."""

    async def listen(self, deliver: Deliver) -> None:
        await self.inner.listen(lambda datagram: deliver((datagram[0], ("127.0.0.1", 9))))


class Lonely(Spoilt):
    """The second server to listen hears nothing."""

    listening: ClassVar[list[int]] = []

    async def listen(self, deliver: Deliver) -> None:
        self.listening.append(self.context.network.beacon_port)
        if self.listening.count(self.context.network.beacon_port) > 1:
            await anyio.sleep_forever()
        await self.inner.listen(deliver)


class Snobbish(Spoilt):
    """Clients have nobody to ask."""

    def targets(self) -> Sequence[Address]:
        return self.inner.targets() if self.context.server else ()


class Threaded(Spoilt):
    """Delivers from a thread."""

    async def listen(self, deliver: Deliver) -> None:
        def from_a_thread(datagram: Datagram) -> None:
            thread = threading.Thread(target=deliver, args=(datagram,))
            thread.start()
            thread.join()

        await self.inner.listen(from_a_thread)


class Attentive(Spoilt):
    """Cannot be interrupted."""

    async def listen(self, deliver: Deliver) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await self.inner.listen(deliver)


class Spent(Spoilt):
    """Listens once."""

    listened = False

    async def listen(self, deliver: Deliver) -> None:
        before, self.listened = self.listened, True
        if before:
            await anyio.sleep_forever()
        await self.inner.listen(deliver)


class Once(Spoilt):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await self.inner.aclose()


PORTS_SEEN: dict[int, int] = {}


async def used_up(context: DiscoveryContext) -> Discovery:
    """A port serves two parties, and then nobody."""
    port = context.network.beacon_port
    PORTS_SEEN[port] = PORTS_SEEN.get(port, 0) + 1
    made = await open_beacon(context)
    return Deaf(made, context) if PORTS_SEEN[port] > 2 else made


REJECTED: list[tuple[str, DiscoveryFactory]] = [
    ("test_targets_are_addresses_whenever_they_are_asked_for", making(Fleeting)),
    ("test_targets_are_addresses_whenever_they_are_asked_for", making(Textual)),
    ("test_without_a_key_nothing_leaves_this_machine", making(Outgoing)),
    ("test_two_servers_find_each_other", making(Deaf)),
    ("test_two_servers_find_each_other", making(Clipping)),
    ("test_two_servers_find_each_other", making(Masked)),
    ("test_all_on_one_machine_hear_an_announcement", making(Lonely)),
    ("test_a_client_is_heard_and_need_not_listen", making(Snobbish)),
    ("test_announcements_are_delivered_in_the_event_loop", making(Threaded)),
    ("test_listening_ends_when_it_is_cancelled", making(Attentive)),
    ("test_listening_ends_when_it_is_cancelled", making(Spent)),
    ("test_closing_twice_does_no_harm", making(Once)),
    ("test_another_may_open_where_one_was_closed", used_up),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "factory"), REJECTED)
async def test_a_broken_discovery_is_rejected(
    name: str, factory: DiscoveryFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distinv.testing.conformance.discovery.ATTEMPTS", 4)
    monkeypatch.setattr("distinv.testing.conformance.discovery.ATTEMPT_S", 0.05)
    monkeypatch.setattr("distinv.testing.conformance.discovery.DEADLINE_S", 0.5)
    with pytest.raises((AssertionError, RuntimeError, TypeError, BaseExceptionGroup)):
        await getattr(DiscoverySuite.of(factory)(), name)()


def test_every_property_rejects_something() -> None:
    names = {name for name in dir(DiscoverySuite) if name.startswith("test_")}
    assert names == {name for name, _ in REJECTED}
