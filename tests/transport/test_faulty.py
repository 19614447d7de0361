"""The fault-injecting transport does what it is told, no more and no less."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from attrs import evolve

from distinv.config import FaultSettings, Network
from distinv.errors import ConfigError
from distinv.transport.api import Datagram, Transport, TransportContext
from distinv.transport.faulty import Cuts, FaultyTransport, faulty
from distinv.transport.memory import MemoryNetwork
from distinv.transport.udp import open_udp

pytestmark = pytest.mark.anyio

COUNT = 2_000


class Rig:
    """A faulty sender and a sound receiver."""

    def __init__(self, settings: FaultSettings, cuts: Cuts | None = None) -> None:
        self.network = MemoryNetwork()
        self.factory = faulty(self.network.open_transport, settings, cuts)

    async def open(self) -> tuple[FaultyTransport, Transport]:
        context = TransportContext(Network(), server=True)
        return await self.factory(context), await self.network.open_transport(context)


async def numbers_that_arrive(settings: FaultSettings, count: int = COUNT) -> list[int]:
    sender, receiver = await Rig(settings).open()
    found: list[int] = []
    for number in range(count):
        sender.send([(receiver.address, number.to_bytes(4, "big"))])
        if number % 100 == 99:
            found.extend(int.from_bytes(data, "big") for data in await arrived(receiver))
    return found


async def arrived(transport: Transport) -> list[bytes]:
    """What is in the receiver's queue; a last datagram of its own marks the end."""
    transport.send([(transport.address, b"end of it")])
    found: list[bytes] = []
    with anyio.fail_after(5):
        while not found or found[-1] != b"end of it":
            found.extend(data for data, _ in await transport.receive())
    return found[:-1]


async def test_without_faults_it_is_not_there() -> None:
    assert await numbers_that_arrive(FaultSettings()) == list(range(COUNT))


@pytest.mark.parametrize("loss", [0.05, 0.3])
async def test_each_datagram_is_lost_by_itself_with_the_probability(loss: float) -> None:
    found = await numbers_that_arrive(FaultSettings(loss=loss, seed=1))
    assert 1 - len(found) / COUNT == pytest.approx(loss, abs=0.03)
    assert found == sorted(found)
    gone = [number for number in range(COUNT) if number not in found]
    pairs = sum(after == before + 1 for before, after in pairwise(gone))
    assert pairs / len(gone) == pytest.approx(loss, abs=0.06)


async def test_the_same_seed_loses_the_same_datagrams() -> None:
    settings = FaultSettings(loss=0.2, seed=5)
    first = await numbers_that_arrive(settings, 300)
    assert first == await numbers_that_arrive(settings, 300)
    assert first != await numbers_that_arrive(evolve(settings, seed=6), 300)


async def test_two_transports_of_one_seed_lose_different_datagrams() -> None:
    rig = Rig(FaultSettings(loss=0.5, seed=5))
    one, receiver = await rig.open()
    two, _ = await rig.open()
    lost = []
    for sender in (one, two):
        sender.send((receiver.address, bytes([number])) for number in range(100))
        lost.append(await arrived(receiver))
    assert lost[0] != lost[1]


async def test_certain_loss_loses_everything_beacons_included() -> None:
    sender, receiver = await Rig(FaultSettings(loss=1.0)).open()
    sender.send([(receiver.address, b"x"), (("255.255.255.255", 4746), b"beacon")])
    assert await arrived(receiver) == []
    assert sender.stats.lost == 2


async def test_duplicates_come_twice() -> None:
    found = await numbers_that_arrive(FaultSettings(duplicate=1.0), 100)
    assert found == [number for number in range(100) for _ in range(2)]


async def test_what_is_held_back_comes_later_and_is_overtaken() -> None:
    settings = FaultSettings(delay=0.5, delay_max_us=2_000, seed=3)
    sender, receiver = await Rig(settings).open()
    heard: list[int] = []
    count = 100

    async def collect() -> None:
        while len(heard) < count:
            heard.extend(data[0] for data, _ in await receiver.receive())
        tasks.cancel_scope.cancel()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sender.receive)  # as a runtime does all the time
            await anyio.wait_all_tasks_blocked()
            sender.send((receiver.address, bytes([number])) for number in range(count))
            tasks.start_soon(collect)
    assert sorted(heard) == list(range(count))
    assert heard != sorted(heard)
    assert sender.stats.delayed == pytest.approx(count // 2, abs=20)


async def test_a_cut_works_in_both_directions_until_it_is_healed() -> None:
    cuts = Cuts()
    sender, receiver = await Rig(FaultSettings(), cuts).open()
    cuts.cut(receiver.address)
    sender.send([(receiver.address, b"lost")])
    receiver.send([(sender.address, b"lost too")])
    assert await arrived(receiver) == []
    assert not await sender.probe(receiver.address)
    heard: list[Datagram] = []

    async def listen() -> None:
        heard.extend(await sender.receive())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            cuts.heal(receiver.address)
            receiver.send([(sender.address, b"back")])
    assert heard == [(b"back", receiver.address)]
    cuts.cut(receiver.address)
    cuts.heal()
    sender.send([(receiver.address, b"there")])
    assert await arrived(receiver) == [b"there"]
    assert sender.stats.cut == 2


async def test_it_is_like_the_transport_inside() -> None:
    network = Network(port=0, faults=FaultSettings(duplicate=1.0))
    sender = await faulty(open_udp)(TransportContext(network, server=True))
    receiver = await open_udp(TransportContext(network, server=True))
    assert sender.payload_bytes == receiver.payload_bytes
    sender.send([(receiver.address, b"x")])
    heard: list[Datagram] = []
    with anyio.fail_after(5):
        while len(heard) < 2:
            heard.extend(await receiver.receive())
    assert heard == [(b"x", sender.address)] * 2
    assert not await sender.probe(receiver.address)
    await receiver.aclose()
    assert await sender.probe(receiver.address)
    await sender.aclose()


@pytest.mark.parametrize(
    "settings",
    [
        FaultSettings(loss=1.1),
        FaultSettings(loss=-0.1),
        FaultSettings(duplicate=2),
        FaultSettings(delay=float("nan")),
        FaultSettings(delay_max_us=0),
    ],
)
async def test_what_is_no_probability_is_refused(settings: FaultSettings) -> None:
    with pytest.raises(ConfigError):
        faulty(open_udp, settings)
    context = TransportContext(Network(port=0, faults=settings), server=True)
    with pytest.raises(ConfigError):
        await faulty(open_udp)(context)
