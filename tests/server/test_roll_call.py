"""Asking for one's own id before taking part: who answers, who starts, who is not disturbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from random import Random

from attrs import define, evolve, field, frozen

from distinv import config
from distinv.core.events import Tell
from distinv.entry import NO_BALLOT, ORIGIN, EntryKind, NodeId, Voter, VoterSet, encode_voters
from distinv.entry import make_entry as next_entry
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import StateMachine
from distinv.multicast.fanout import fanout
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.engine import Engine
from distinv.server.roll_call import CALLS, RollCall
from distinv.server.settings import Settings
from distinv.storage.api import EntryRecord, IdentityRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint
from distinv.wire.frame import parse_header_untrusted
from distinv.wire.seal import KeySeal

EVERYBODY: Address = ("255.255.255.255", 4746)
SETTINGS = config.lan()
WINDOW_US = SETTINGS.timing.roll_call_us
VOTER, STRANGER = NodeId(1), NodeId(0x5712A)
KEY = bytes(32)


def endpoint_of(node: NodeId, boot: int, seed: int = 0) -> Endpoint:
    return Endpoint(
        self_id=node,
        boot=boot,
        seal=KeySeal(KEY),
        random=Random(seed),
        timing=SETTINGS.timing,
        limits=SETTINGS.limits,
        payload_bytes=1_200,
    )


@define
class Asker:
    """A process that calls the roll for the server `node`."""

    boot: int
    node: NodeId = VOTER
    now: int = 0
    seed: int = 0
    told: list[tuple[str, str]] = field(factory=list)
    roll: RollCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.roll = RollCall(
            node=self.node,
            boot=self.boot,
            make_endpoint=lambda: endpoint_of(STRANGER, 1_000 + self.boot),
            targets=lambda: [EVERYBODY],
            timing=SETTINGS.timing,
            limits=SETTINGS.limits,
            random=Random(self.seed),
            tell=lambda text, level: self.told.append((text, level)),
            now=self.now,
        )

    def step(self, now: int, arrived: Sequence[tuple[bytes, Address]]) -> list[Sent]:
        for data, source in arrived:
            self.roll.receive(data, source, now)
        self.roll.on_deadline(now)
        return self.roll.flush(now)


@define
class Server:
    """A whole server, the voter `node` of the three 1, 2 and 3."""

    boot: int
    node: NodeId = VOTER
    now: int = 0
    lines: list[Tell] = field(factory=list)
    engine: Engine = field(init=False)
    persisted: int = 0

    def __attrs_post_init__(self) -> None:
        voters = VoterSet("shop", 77, tuple(Voter(NodeId(id), f"s{id}") for id in (1, 2, 3)))
        birth = next_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(voters))
        storage, random = MemoryStorage(), Random(self.boot)
        storage.recover()
        storage.commit([IdentityRecord(self.node, "shop"), EntryRecord(birth)])
        storage.crash()
        depot = MemoryDepot(SETTINGS.limits)
        self.engine = Engine(
            self_id=self.node,
            settings=Settings("shop", f"s{self.node}", 3, "silent"),
            config=SETTINGS,
            recovered=storage.recover(),
            machine=StateMachine(":memory:", SETTINGS.limits),
            check_command=decode_command_untrusted,
            read_log=storage.read,
            endpoint=endpoint_of(self.node, self.boot, self.boot),
            election=Silent,
            multicast=fanout,
            targets=lambda: [EVERYBODY],
            random=random,
            now=self.now,
            make_snapshot=depot.maker,
            pieces=depot,
        )

    def step(self, now: int, arrived: Sequence[tuple[bytes, Address]]) -> list[Sent]:
        for data, source in arrived:
            self.engine.receive(data, source, now)
        if self.persisted:
            self.engine.persisted(self.persisted, now)
            self.persisted = 0
        if self.engine.deadline() <= now:
            self.engine.on_deadline(now)
        turn = self.engine.end_turn(now)
        if turn.write is not None:
            self.persisted = turn.write.ticket
        self.lines += turn.lines
        return turn.datagrams

    @property
    def alarms(self) -> list[str]:
        return [line.text for line in self.lines if "identity" in line.text]


Sent = tuple[Address, bytes]


@frozen
class Carried:
    source: Address
    target: Address
    data: bytes


@define
class Wire:
    """Carries at once what everybody said in a millisecond; nothing else is between them."""

    now: int = 0
    hosts: dict[Address, Asker | Server] = field(factory=dict)
    carried: list[Carried] = field(factory=list)
    passes: Callable[[Carried], bool] = lambda _: True
    _ports: count[int] = field(factory=lambda: count(1))

    def add(self, host: Asker | Server) -> Address:
        address = ("10.0.0.1", next(self._ports))
        self.hosts[address] = host
        return address

    def run(self, time_us: int) -> None:
        arriving: dict[Address, list[tuple[bytes, Address]]] = {}
        end = self.now + time_us
        while self.now < end:
            arrived, arriving = arriving, {}
            for address, host in list(self.hosts.items()):
                for target, data in host.step(self.now, arrived.get(address, ())):
                    for each in self.hosts if target == EVERYBODY else (target,):
                        carried = Carried(address, each, data)
                        if each != address and self.passes(carried):
                            self.carried.append(carried)
                            arriving.setdefault(each, []).append((data, address))
            self.now += 1_000


def test_nobody_answers_and_the_server_may_start() -> None:
    wire, asker = Wire(), Asker(boot=1)
    wire.add(asker)
    wire.run(WINDOW_US)
    assert not asker.roll.over(WINDOW_US - 1)
    assert asker.roll.over(WINDOW_US)
    assert asker.roll.refusal is None


def test_it_calls_three_times_and_no_more() -> None:
    wire, asker = Wire(), Asker(boot=1)
    wire.add(asker)
    wire.add(Asker(boot=9, node=NodeId(2)))
    wire.run(3 * WINDOW_US)
    calls = [each for each in wire.carried if each.source == ("10.0.0.1", 1)]
    assert len(calls) == CALLS


def test_when_it_is_to_be_called() -> None:
    asker, times = Asker(boot=1), []
    while not asker.roll.over(asker.now):
        asker.now = asker.roll.deadline()
        times.append(asker.now)
        asker.roll.on_deadline(asker.now)
    assert times == [0, WINDOW_US // 3, 2 * WINDOW_US // 3, WINDOW_US]


def test_an_elder_keeps_a_copy_from_starting() -> None:
    wire, elder = Wire(), Server(boot=5)
    home = wire.add(elder)
    wire.run(1_000_000)
    copy = Asker(boot=3, now=wire.now)  # a low boot is no excuse
    place = wire.add(copy)
    wire.run(5_000)
    assert copy.roll.over(wire.now)
    assert f"another process at {home[0]}:{home[1]} has this server's identity" in str(
        copy.roll.refusal
    )
    (alarm,) = elder.alarms
    assert f"another process at {place[0]}:{place[1]} has this server's identity" in alarm
    assert elder.engine.twins.displaced is None


def test_any_of_the_three_calls_may_be_the_one_that_arrives() -> None:
    for heard in range(CALLS):
        wire, elder = Wire(), Server(boot=5)
        home = wire.add(elder)
        wire.run(10_000)
        copy, calls = Asker(boot=3, now=wire.now), count()
        place = wire.add(copy)
        wire.passes = lambda each: (
            (each.source, each.target) != (place, home) or next(calls) >= heard  # noqa: B023
        )
        wire.run(WINDOW_US)
        assert copy.roll.refusal is not None


def test_others_neither_answer_nor_take_it_for_the_server() -> None:
    """They go on with the process that they know: nothing of it is touched."""
    wire = Wire()
    servers = [Server(boot=5 + number, node=NodeId(number)) for number in (1, 2, 3)]
    homes = [wire.add(server) for server in servers]
    wire.run(2_000_000)
    known = servers[1].engine.endpoint
    assert known.connected(NodeId(1))
    copy = Asker(boot=3, now=wire.now)
    place = wire.add(copy)
    del wire.carried[:]
    wire.run(WINDOW_US)
    assert copy.roll.refusal is not None
    assert known.address_of(NodeId(1)) == homes[0]
    assert not known.connected(STRANGER)
    assert [each for each in wire.carried if each.target == place and each.source != homes[0]] == []


def test_it_says_nothing_under_the_id_that_it_asks_for() -> None:
    """Nor does it answer those who knew the earlier run of the server at this address."""
    wire, neighbour = Wire(), Server(boot=6, node=NodeId(2))
    wire.add(neighbour)
    first = Server(boot=5)
    place = wire.add(first)
    wire.run(2_000_000)
    assert neighbour.engine.endpoint.connected(NodeId(1))
    wire.hosts[place] = asker = Asker(boot=7, now=wire.now)
    neighbour.engine.endpoint.send(NodeId(1), b"to the earlier run", wire.now)
    neighbour.engine.endpoint.send_to(place, b"no message at all", wire.now)
    del wire.carried[:]
    wire.run(WINDOW_US)
    said = [parse_header_untrusted(each.data) for each in wire.carried if each.source == place]
    assert len(said) == CALLS
    assert {(each.sender, each.sender_boot, each.receiver_boot) for each in said} == {
        (STRANGER, 1_007, 0)
    }
    assert any(each.target == place for each in wire.carried)
    assert asker.roll.refusal is None


def test_of_two_copies_that_start_at_once_one_starts() -> None:
    for difference_us in (0, 1_000, 7_000, WINDOW_US // 3, WINDOW_US // 2):
        for boots in ((1, 2), (2, 1)):
            wire = Wire()
            one = Asker(boot=boots[0], seed=1)
            wire.add(one)
            wire.run(difference_us)
            other = Asker(boot=boots[1], seed=2, now=wire.now)
            wire.add(other)
            wire.run(2 * WINDOW_US)
            low, high = sorted((one, other), key=lambda each: each.boot)
            assert low.roll.refusal is None
            assert high.roll.refusal is not None
            assert len(low.told) == 1


def test_a_copy_that_asks_after_the_other_began_gives_way_whatever_its_boot() -> None:
    wire, first = Wire(), Asker(boot=9, seed=1)
    place = wire.add(first)
    wire.run(WINDOW_US)
    wire.hosts[place] = Server(boot=9, now=wire.now)
    second = Asker(boot=1, seed=2, now=wire.now)
    wire.add(second)
    wire.run(WINDOW_US)
    assert first.roll.refusal is None
    assert second.roll.refusal is not None


def test_another_server_may_call_at_the_same_time() -> None:
    wire = Wire()
    one, other = Asker(boot=1), Asker(boot=2, node=NodeId(2))
    wire.add(one)
    wire.add(other)
    wire.run(WINDOW_US)
    assert one.roll.refusal is None
    assert other.roll.refusal is None


def test_without_a_window_nobody_is_asked() -> None:
    timing = evolve(SETTINGS.timing, roll_call_us=0)
    roll = RollCall(
        node=NodeId(1),
        boot=1,
        make_endpoint=lambda: endpoint_of(STRANGER, 1),
        targets=lambda: [EVERYBODY],
        timing=timing,
        limits=SETTINGS.limits,
        random=Random(1),
        tell=lambda text, level: None,
        now=5,
    )
    assert roll.over(5)
    roll.on_deadline(5)
    assert roll.flush(5) == []


# --- whom it could not hear -----------------------------------------------------------------------


def test_two_that_run_find_out_as_soon_as_they_hear_each_other() -> None:
    """Cut off from each other while the second one called: now the newer stops."""
    wire, elder = Wire(), Server(boot=9)
    home = wire.add(elder)
    wire.run(100_000)
    newer = Server(boot=3, now=wire.now)
    place = wire.add(newer)
    wire.passes = lambda each: {each.source, each.target} != {home, place}
    wire.run(10_000_000)
    assert newer.engine.twins.displaced is None
    wire.passes = lambda _: True
    wire.run(2 * SETTINGS.timing.beacon_us)
    assert newer.engine.twins.displaced is not None
    assert elder.engine.twins.displaced is None
    assert len(elder.alarms) == 1
    assert f"{place[0]}:{place[1]}" in elder.alarms[0]


def test_the_past_of_a_server_stops_nobody() -> None:
    """Recorded datagrams of the run before, repeated: the place is asked, and nobody answers."""
    wire, first = Wire(), Server(boot=5)
    place = wire.add(first)
    wire.add(Server(boot=6, node=NodeId(2)))
    wire.run(1_000_000)
    recorded = [each.data for each in wire.carried if each.source == place]
    wire.hosts[place] = again = Server(boot=7, now=wire.now)
    for data in recorded:
        again.engine.receive(data, ("10.0.0.9", 9), wire.now)
    del wire.carried[:]
    wire.run(1_000_000)
    assert len([each for each in wire.carried if each.target == ("10.0.0.9", 9)]) == 1
    assert again.engine.twins.displaced is None
    assert not again.alarms
