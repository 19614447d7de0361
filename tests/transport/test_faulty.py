"""The fault-injecting transport does what it is told, no more and no less."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from attrs import evolve

from distinv.config import FaultSettings, Network
from distinv.errors import ConfigError
from distinv.testing.steering import FaultControl
from distinv.transport.api import Datagram, Transport, TransportContext
from distinv.transport.faulty import EVERYBODY, Cuts, FaultyTransport, faulty, parse_steering
from distinv.transport.memory import MemoryNetwork, MemoryTransport
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


# --- one way, and everybody --------------------------------------------------------------------


async def test_a_cut_may_be_in_one_direction_only() -> None:
    cuts = Cuts()
    sender, receiver = await Rig(FaultSettings(), cuts).open()
    cuts.cut_to(receiver.address)
    sender.send([(receiver.address, b"lost")])
    assert await arrived(receiver) == []
    receiver.send([(sender.address, b"heard")])
    assert await sender.receive() == [(b"heard", receiver.address)]
    assert not await sender.probe(receiver.address)
    cuts.heal()
    cuts.cut_from(receiver.address)
    sender.send([(receiver.address, b"there")])
    assert await arrived(receiver) == [b"there"]
    receiver.send([(sender.address, b"lost")])
    other = await sender_beside(sender)
    other.send([(sender.address, b"from another")])
    assert [data for data, _ in await sender.receive()] == [b"from another"]
    assert sender.stats.cut == 2


async def sender_beside(transport: FaultyTransport) -> Transport:
    """One more transport on the same network."""
    inner = transport._inner
    assert isinstance(inner, MemoryTransport)
    return await inner._network.open_transport(TransportContext(Network(), server=False))


async def test_everybody_can_be_cut_at_once_announcements_included() -> None:
    cuts = Cuts()
    sender, receiver = await Rig(FaultSettings(), cuts).open()
    cuts.cut(EVERYBODY)
    sender.send([(receiver.address, b"x"), (("255.255.255.255", 4746), b"beacon")])
    assert await arrived(receiver) == []
    assert sender.stats.cut == 2


# --- steered from outside ----------------------------------------------------------------------


class Steered:
    """A sender that watches a file, whose every look is due."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("distinv.transport.faulty._LOOK_S", 0.0)
        self.path = path
        self.network = MemoryNetwork()

    async def open(self, usual: FaultSettings | None = None) -> tuple[FaultyTransport, Transport]:
        context = TransportContext(Network(), server=True)
        factory = faulty(self.network.open_transport, usual, steering=self.path)
        return await factory(context), await self.network.open_transport(context)

    def write(self, text: str) -> None:
        """Replace the file, as whoever steers has to."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)


@pytest.fixture
def steered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Steered:
    return Steered(tmp_path / "faults", monkeypatch)


async def test_the_file_steers_while_it_runs(steered: Steered) -> None:
    sender, receiver = await steered.open()
    sender.send([(receiver.address, b"one")])
    steered.write('{"loss": 1.0}')
    sender.send([(receiver.address, b"two")])
    host, port = receiver.address
    steered.write(f'{{"cut_to": ["{host}:{port}"]}}')
    sender.send([(receiver.address, b"three")])
    steered.write('{"duplicate": 1}')
    sender.send([(receiver.address, b"four")])
    steered.write("{}")
    sender.send([(receiver.address, b"five")])
    steered.path.unlink()
    sender.send([(receiver.address, b"six")])
    assert await arrived(receiver) == [b"one", b"four", b"four", b"five", b"six"]
    assert (sender.stats.lost, sender.stats.cut) == (1, 1)


async def test_what_the_file_does_not_name_is_as_at_the_start(steered: Steered) -> None:
    steered.write('{"duplicate": 1}')
    sender, receiver = await steered.open(FaultSettings(loss=1.0))
    sender.send([(receiver.address, b"lost")])
    steered.write('{"loss": 0}')
    sender.send([(receiver.address, b"one")])
    assert await arrived(receiver) == [b"one"]


async def test_a_wrong_file_changes_nothing_and_is_told(
    steered: Steered, caplog: pytest.LogCaptureFixture
) -> None:
    sender, receiver = await steered.open()
    steered.write('{"loss": 1}')
    sender.send([(receiver.address, b"lost")])
    steered.write('{"los": 0}')
    sender.send([(receiver.address, b"lost")])
    assert await arrived(receiver) == []
    assert caplog.messages == [
        f"the faults stay as they were: {steered.path}: there is no fault 'los'; choose from "
        "loss, duplicate, delay, delay_max_us, cut, cut_to, cut_from"
    ]


async def test_a_wrong_file_at_the_start_is_an_error(steered: Steered) -> None:
    steered.write('{"loss": 2}')
    with pytest.raises(ConfigError, match="loss is a probability"):
        await steered.open()


async def test_the_environment_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "faults"
    path.write_text('{"loss": 1}')
    monkeypatch.setenv("DISTINV_FAULTS", str(path))
    sender, receiver = await Rig(FaultSettings()).open()
    sender.send([(receiver.address, b"lost")])
    assert await arrived(receiver) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "faults are one JSON object, and this is none"),
        ("[]", "faults are one JSON object, such as"),
        ('{"loss": "much"}', "loss is a probability, from 0 to 1, and 'much' is none"),
        ('{"loss": true}', "loss is a probability, from 0 to 1, and True is none"),
        ('{"delay_max_us": 0.5}', "delay_max_us is 0.5, and must be a whole number"),
        ('{"cut": "10.0.0.5:4747"}', "cut is a list of addresses"),
        ('{"cut_from": ["10.0.0.5"]}', "cut_from: '10.0.0.5' is no address"),
        ('{"cut_to": ["10.0.0.5:70000"]}', "cut_to: '10.0.0.5:70000' is no address"),
        ('{"cut_to": [4747]}', "cut_to: 4747 is no address"),
    ],
)
async def test_what_cannot_be_meant_is_said_in_words(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        parse_steering(text, FaultSettings())


async def test_a_control_writes_what_the_transport_reads(steered: Steered) -> None:
    control = FaultControl(steered.path)
    sender, receiver = await steered.open()
    control.set(loss=1.0)
    sender.send([(receiver.address, b"lost")])
    control.set(loss=0.0, duplicate=1.0)
    control.cut_to(receiver.address)
    sender.send([(receiver.address, b"cut")])
    control.heal()
    sender.send([(receiver.address, b"twice")])
    control.isolate()
    sender.send([(receiver.address, b"cut")])
    control.reset()
    sender.send([(receiver.address, b"once")])
    assert await arrived(receiver) == [b"twice", b"twice", b"once"]
    with pytest.raises(ConfigError, match="delay is a probability"):
        control.set(delay=7)
    with pytest.raises(ConfigError, match="cut_from: 'nowhere:-1' is no address"):
        control.cut_from(("nowhere", -1))
    sender.send([(receiver.address, b"still once")])
    assert await arrived(receiver) == [b"still once"]
