"""UDP over loopback, with real sockets, on both backends."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from distinv.config import Limits, Network
from distinv.errors import ConfigError
from distinv.transport.api import Address, Datagram, Transport, TransportContext
from distinv.transport.udp import UdpTransport, is_loopback, open_udp

pytestmark = pytest.mark.anyio

ANY_PORT = Network(port=0)


@asynccontextmanager
async def udp(network: Network = ANY_PORT, *, server: bool = True) -> AsyncIterator[UdpTransport]:
    transport = await open_udp(TransportContext(network, server))
    try:
        yield transport
    finally:
        await transport.aclose()


async def receive(transport: Transport, count: int) -> list[Datagram]:
    """`count` datagrams; a test that loses one fails here instead of hanging."""
    found: list[Datagram] = []
    with anyio.fail_after(5):
        while len(found) < count:
            found.extend(await transport.receive())
    return found


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_a_datagram_arrives_with_the_address_to_answer_to() -> None:
    async with udp() as one, udp() as two:
        one.send([(two.address, b"ping")])
        ((data, source),) = await receive(two, 1)
        assert (data, source) == (b"ping", one.address)
        two.send([(source, b"pong")])
        assert await receive(one, 1) == [(b"pong", two.address)]


async def test_a_burst_is_kept_whole_and_drained_in_batches() -> None:
    """anyio's own UDP socket would keep the last hundred of these."""
    count = Limits().turn_datagrams + 50
    async with udp() as one, udp() as two:
        one.send((two.address, number.to_bytes(4, "big")) for number in range(count))
        with anyio.fail_after(5):
            first = await two.receive()
        assert len(first) == Limits().turn_datagrams
        rest = await receive(two, 50)
        numbers = [int.from_bytes(data, "big") for data, _ in first + rest]
        assert numbers == list(range(count))
        assert two.stats.received == one.stats.sent == count


async def test_receive_waits_until_something_comes() -> None:
    async with udp() as one, udp() as two, anyio.create_task_group() as tasks:
        heard: list[Datagram] = []

        async def listen() -> None:
            heard.extend(await receive(two, 1))

        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        assert heard == []
        one.send([(two.address, b"at last")])
    assert [data for data, _ in heard] == [b"at last"]


async def test_the_largest_payload_passes() -> None:
    async with udp() as one, udp() as two:
        assert one.payload_bytes == Network().payload_loopback_bytes
        data = bytes(one.payload_bytes)
        one.send([(two.address, data)])
        assert (await receive(two, 1))[0][0] == data


async def test_off_loopback_the_payload_is_small() -> None:
    async with udp(Network(host="0.0.0.0", port=0)) as transport:
        assert transport.payload_bytes == Network().payload_bytes


@pytest.mark.parametrize(
    "target",
    [
        ("127.0.0.1", 0),
        ("127.0.0.1", 70_000),
        ("127.0.0.1", -1),
        ("no.such.host.invalid", 4747),
        ("", 4747),
        ("a\0b", 4747),
        ("::1", 4747),
        (b"\xff", 4747),
        ("127.0.0.1", "x"),
    ],
)
async def test_nonsense_is_lost_and_counted_never_raised(target: Address) -> None:
    async with udp() as one, udp() as two:
        one.send([(target, b"x"), (two.address, b"y")])
        assert await receive(two, 1) == [(b"y", one.address)]
        assert one.stats.dropped_failed == 1


async def test_a_datagram_that_is_too_long_is_lost_and_counted() -> None:
    async with udp() as one:
        one.send([(one.address, bytes(70_000))])
        assert (one.stats.sent, one.stats.dropped_failed) == (0, 1)


class Refusing:
    """A socket whose kernel always says the same."""

    def __init__(self, error: OSError) -> None:
        self._error = error

    def getsockname(self) -> Address:
        return ("127.0.0.1", 1)

    def sendto(self, data: bytes, address: Address) -> int:
        raise self._error


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EPERM, "firewall"),
        OSError(errno.ENETUNREACH, "no network"),
        OSError(errno.ENOBUFS, "no memory"),
        ConnectionRefusedError(errno.ECONNREFUSED, "of an earlier one"),
    ],
)
async def test_what_a_network_refuses_is_lost_and_counted(error: OSError) -> None:
    transport = UdpTransport(Refusing(error), ANY_PORT)  # type: ignore[arg-type]
    transport.send([(("10.0.0.1", 4747), b"x")] * 3)
    assert (transport.stats.sent, transport.stats.dropped_failed) == (0, 3)


async def test_a_full_send_buffer_is_lost_and_counted() -> None:
    transport = UdpTransport(Refusing(BlockingIOError()), ANY_PORT)  # type: ignore[arg-type]
    transport.send([(("10.0.0.1", 4747), b"x")])
    assert transport.stats.dropped_full == 1


async def test_the_default_port_gives_way() -> None:
    port = free_port()
    async with udp(Network(port=port)) as first, udp(Network(port=port)) as second:
        assert first.address == ("127.0.0.1", port)
        assert second.address[1] not in (0, port)


async def test_an_explicit_port_that_is_in_use_is_an_error_that_says_what_to_do() -> None:
    async with udp() as first:
        network = Network(port=first.address[1], port_explicit=True)
        with pytest.raises(ConfigError, match=r"in use: stop .* another port") as raised:
            await open_udp(TransportContext(network, server=True))
        assert "\n" not in str(raised.value)


async def test_a_client_takes_any_port() -> None:
    port = free_port()
    async with udp(Network(port=port), server=False) as client:
        assert client.address[1] != port


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("203.0.113.1", "has no address 203.0.113.1"),
        ("not..a.name", "cannot find an IPv4 address"),
        ("::1", "cannot find an IPv4 address"),
    ],
)
async def test_a_host_that_is_not_of_this_machine(host: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        await open_udp(TransportContext(Network(host=host, port=0), server=True))


async def test_a_host_may_be_a_name() -> None:
    async with udp(Network(host="localhost", port=0)) as transport:
        assert transport.address[0] == "127.0.0.1"


async def test_a_probe_tells_a_closed_port_from_an_open_one() -> None:
    async with udp() as one, udp() as two:
        assert not await one.probe(two.address)
        gone = two.address
        await two.aclose()
        assert await one.probe(gone)


async def test_a_probe_is_one_byte_that_nothing_else_is() -> None:
    async with udp() as one, udp() as two:
        await one.probe(two.address)
        heard = await receive(two, Network().probe_tries)
        assert {data for data, _ in heard} == {b"\0"}


@pytest.mark.parametrize("target", [("no.such.host.invalid", 1), ("127.0.0.1", 70_000), ("", 0)])
async def test_a_probe_of_nonsense_knows_nothing(target: Address) -> None:
    async with udp() as one:
        assert not await one.probe(target)


async def test_a_refusal_of_an_earlier_datagram_does_not_disturb_receive() -> None:
    async with udp() as one, udp() as two:
        one.send([(("127.0.0.1", free_port()), b"to nobody")])
        two.send([(one.address, b"hello")])
        assert await receive(one, 1) == [(b"hello", two.address)]


async def test_closing_wakes_the_receiver() -> None:
    transport = await open_udp(TransportContext(ANY_PORT, server=True))
    closed: list[bool] = []

    async def listen() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await transport.receive()
        closed.append(True)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await transport.aclose()
    assert closed == [True]
    with pytest.raises(anyio.ClosedResourceError):
        await transport.receive()
    await transport.aclose()
    transport.send([(("127.0.0.1", 9), b"x")])
    assert transport.stats.dropped_failed == 1


def test_loopback_is_all_of_127() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.1.2.3")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.168.1.1")
