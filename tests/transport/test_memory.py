"""The in-memory network keeps the same contract as sockets."""

from __future__ import annotations

import anyio
import pytest

from distinv.config import Limits, Network
from distinv.discovery.api import DiscoveryContext
from distinv.errors import ConfigError
from distinv.transport.api import Datagram, TransportContext
from distinv.transport.memory import MemoryNetwork, MemoryTransport

pytestmark = pytest.mark.anyio


async def server(network: MemoryNetwork, port: int = 4747) -> MemoryTransport:
    return await network.open_transport(TransportContext(Network(port=port), server=True))


async def test_a_datagram_arrives_with_the_address_to_answer_to() -> None:
    network = MemoryNetwork()
    one, two = await server(network), await server(network)
    one.send([(two.address, b"a"), (two.address, b"b")])
    assert await two.receive() == [(b"a", one.address), (b"b", one.address)]


async def test_the_default_port_gives_way_and_an_explicit_one_does_not() -> None:
    network = MemoryNetwork()
    one, two = await server(network), await server(network)
    assert one.address == ("127.0.0.1", 4747)
    assert two.address != one.address
    with pytest.raises(ConfigError, match="in use"):
        await network.open_transport(
            TransportContext(Network(port=4747, port_explicit=True), server=True)
        )


async def test_a_client_takes_any_port() -> None:
    network = MemoryNetwork()
    client = await network.open_transport(TransportContext(Network(), server=False))
    assert client.address[1] != Network().port


async def test_receive_waits_and_takes_a_turns_worth() -> None:
    network = MemoryNetwork()
    one, two = await server(network), await server(network)
    batches: list[list[Datagram]] = []

    async def listen() -> None:
        batches.append(await two.receive())
        batches.append(await two.receive())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            one.send([(two.address, b"x")] * (Limits().turn_datagrams + 1))
    assert [len(batch) for batch in batches] == [Limits().turn_datagrams, 1]


async def test_a_full_queue_loses_and_counts() -> None:
    network = MemoryNetwork()
    one, two = await server(network), await server(network)
    one.send([(two.address, b"x")] * (Limits().inbox_datagrams + 3))
    one.send([(("127.0.0.1", 9), b"x")])
    assert network.lost == 4


async def test_a_probe_tells_who_is_gone() -> None:
    network = MemoryNetwork()
    one, two = await server(network), await server(network)
    assert not await one.probe(two.address)
    await two.aclose()
    await two.aclose()
    assert await one.probe(two.address)


async def test_closing_wakes_the_receiver() -> None:
    transport = await server(MemoryNetwork())

    async def listen() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await transport.receive()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            await transport.aclose()


def discovery_context(*, server: bool) -> DiscoveryContext:
    return DiscoveryContext(Network(), (), loopback_only=True, server=server)


async def test_everybody_that_listens_hears_an_announcement() -> None:
    network = MemoryNetwork()
    one = await server(network)
    heard: list[Datagram] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                discovery = await network.open_discovery(discovery_context(server=True))
                tasks.start_soon(discovery.listen, heard.append)
            client = await network.open_discovery(discovery_context(server=False))
            await client.listen(heard.append)
            await anyio.wait_all_tasks_blocked()
            one.send([(target, b"here") for target in client.targets()])
            tasks.cancel_scope.cancel()
    assert heard == [(b"here", one.address)] * 2
    one.send([(target, b"gone") for target in client.targets()])
    assert len(heard) == 2


async def test_given_servers_are_the_targets() -> None:
    servers = (("127.0.0.1", 4750),)
    context = DiscoveryContext(Network(), servers, loopback_only=True, server=False)
    discovery = await MemoryNetwork().open_discovery(context)
    assert discovery.targets() == servers
