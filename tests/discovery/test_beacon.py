"""Announcements on one machine: real sockets on loopback, invented interfaces."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface

import anyio
import ifaddr
import pytest

from distinv.config import Network
from distinv.discovery import beacon
from distinv.discovery.api import DiscoveryContext
from distinv.discovery.beacon import LOOPBACK_BROADCAST, BeaconDiscovery, open_beacon
from distinv.errors import ConfigError
from distinv.transport.api import Datagram, TransportContext
from distinv.transport.udp import open_udp

pytestmark = pytest.mark.anyio

LAN = IPv4Interface("192.168.7.5/24")
LOOPBACK = IPv4Interface("127.0.0.1/8")


@pytest.fixture
def beacon_port() -> int:
    """A port that no cluster on this machine announces itself at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def discovery(
    port: int, *, host: str = "127.0.0.1", loopback_only: bool = True, server: bool = True
) -> AsyncIterator[BeaconDiscovery]:
    network = Network(host=host, beacon_port=port)
    found = await open_beacon(
        DiscoveryContext(network, (), loopback_only=loopback_only, server=server)
    )
    try:
        yield found
    finally:
        await found.aclose()


async def heard_by(
    listeners: list[BeaconDiscovery], datagrams: list[tuple[tuple[str, int], bytes]]
) -> list[list[Datagram]]:
    """Send the datagrams once all listen; what each has heard when each has heard something."""
    heard: list[list[Datagram]] = [[] for _ in listeners]
    everybody = anyio.Event()
    sender = await open_udp(TransportContext(Network(port=0), server=True))

    async with anyio.create_task_group() as tasks:
        for listener, mine in zip(listeners, heard):

            def deliver(datagram: Datagram, mine: list[Datagram] = mine) -> None:
                mine.append(datagram)
                if all(heard):
                    everybody.set()

            tasks.start_soon(listener.listen, deliver)
        await anyio.wait_all_tasks_blocked()
        sender.send(datagrams)
        with anyio.fail_after(5):
            await everybody.wait()
        tasks.cancel_scope.cancel()
    assert {source for mine in heard for _, source in mine} == {sender.address}
    await sender.aclose()
    return heard


async def test_every_server_on_a_machine_hears_the_loopback(beacon_port: int) -> None:
    async with discovery(beacon_port) as one, discovery(beacon_port) as two:
        assert one.targets() == ((LOOPBACK_BROADCAST, beacon_port),)
        heard = await heard_by([one, two], [(target, b"here") for target in one.targets()])
    assert [[data for data, _ in mine] for mine in heard] == [[b"here"], [b"here"]]


async def test_servers_with_and_without_a_network_share_the_port(
    beacon_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beacon, "ipv4_interfaces", lambda: [LOOPBACK])
    async with (
        discovery(beacon_port) as inside,
        discovery(beacon_port, host="0.0.0.0", loopback_only=False) as outside,
    ):
        await heard_by([inside, outside], [((LOOPBACK_BROADCAST, beacon_port), b"here")])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to a broadcast address")
async def test_without_a_key_nothing_from_a_network_gets_in(beacon_port: int) -> None:
    """Only what is sent to the loopback's broadcast address, not what is sent to the port."""
    async with discovery(beacon_port) as one:
        datagrams = [
            (("127.0.0.1", beacon_port), b"to the port"),
            ((LOOPBACK_BROADCAST, beacon_port), b"to all"),
        ]
        (heard,) = await heard_by([one], datagrams)
    assert [data for data, _ in heard] == [b"to all"]


async def test_targets_are_every_broadcast_address_the_group_and_loopback(
    beacon_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfaces = [
        LOOPBACK,
        LAN,
        IPv4Interface("192.168.7.6/24"),  # a second address in the same network
        IPv4Interface("10.1.2.3/20"),
        IPv4Interface("10.9.9.9/32"),  # a tunnel
        IPv4Interface("10.9.9.8/31"),
    ]
    monkeypatch.setattr(beacon, "ipv4_interfaces", lambda: interfaces)
    async with discovery(beacon_port, host="0.0.0.0", loopback_only=False, server=False) as client:
        assert client.targets() == tuple(
            (host, beacon_port)
            for host in ("127.255.255.255", "192.168.7.255", "10.1.15.255", "239.255.47.46")
        )


def test_interfaces_are_looked_at_again_after_a_while(
    beacon_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = 0
    looks = 0
    interfaces = [LOOPBACK]

    def look() -> list[IPv4Interface]:
        nonlocal looks
        looks += 1
        return interfaces

    monkeypatch.setattr(beacon, "ipv4_interfaces", look)
    monkeypatch.setattr("time.monotonic_ns", lambda: now_ns)
    network = Network(beacon_port=beacon_port)
    client = BeaconDiscovery(network, loopback_only=False, shared=None)
    assert len(client.targets()) == 2
    interfaces.append(LAN)
    now_ns = network.interfaces_kept_us * 1_000 - 1
    assert len(client.targets()) == 2
    assert looks == 1
    now_ns += 1
    assert len(client.targets()) == 3
    assert looks == 2


async def test_a_machine_without_a_network_is_no_error(
    beacon_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing() -> list[ifaddr.Adapter]:
        raise OSError("no interfaces")

    monkeypatch.setattr("ifaddr.get_adapters", nothing)
    async with discovery(beacon_port, host="0.0.0.0", loopback_only=False) as server:
        assert [host for host, _ in server.targets()] == [LOOPBACK_BROADCAST, "239.255.47.46"]
        await heard_by([server], [((LOOPBACK_BROADCAST, beacon_port), b"here")])


async def test_an_interface_that_cannot_join_the_group_is_no_error(
    beacon_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = IPv4Interface("203.0.113.9/24")  # no interface of this machine has it
    monkeypatch.setattr(beacon, "ipv4_interfaces", lambda: [gone, gone, LOOPBACK])
    async with discovery(beacon_port, host="0.0.0.0", loopback_only=False) as server:
        assert ("203.0.113.255", beacon_port) in server.targets()


async def test_a_key_does_not_lead_out_of_a_loopback_host(beacon_port: int) -> None:
    async with discovery(beacon_port, host="127.0.0.2", loopback_only=False) as server:
        assert server.targets() == ((LOOPBACK_BROADCAST, beacon_port),)


async def test_a_client_does_not_listen(beacon_port: int) -> None:
    async with discovery(beacon_port, server=False) as client:
        with anyio.fail_after(5):
            await client.listen(lambda datagram: pytest.fail("a client heard something"))


async def test_a_port_that_is_not_shared_is_an_error_that_says_what_to_do(
    beacon_port: int,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", beacon_port))
        with pytest.raises(ConfigError, match="does not share it: stop it, or give the servers"):
            async with discovery(beacon_port):
                pytest.fail("it opened")
        async with discovery(beacon_port, server=False) as client:
            assert client.targets()


def test_the_interfaces_of_this_machine_have_a_loopback() -> None:
    assert any(interface.is_loopback for interface in beacon.ipv4_interfaces())
