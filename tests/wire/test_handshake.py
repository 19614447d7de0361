"""Who is believed to live behind an id: proof by a fresh challenge, and nothing else."""

from __future__ import annotations

import pytest
from lossy_network import ROUGH, SECOND, Faults, Host, Network, both_connected, pair

from distinv.config import Timing
from distinv.transport.api import Address
from distinv.wire.endpoint import Incoming, Notice, PeerSeen, TwinHeard
from distinv.wire.seal import KeySeal, PlainSeal, Seal

SEALS: list[Seal] = [PlainSeal(), KeySeal(bytes(32))]
each_seal = pytest.mark.parametrize("seal", SEALS, ids=["plain", "key"])


def replay(network: Network, to: Host, recorded: list[tuple[Address, Address, bytes]]) -> None:
    for source, destination, data in recorded:
        if destination == to.address:
            network.put(network.now + 10, source, to.address, data)
    network.run(SECOND)


@each_seal
def test_two_meet(seal: Seal) -> None:
    network = Network(1)
    a, b = network.host(1, seal=seal), network.host(2, seal=seal)
    a.greet(b)
    assert not a.endpoint.connected(b.id)
    assert network.run(10_000, lambda: both_connected(a, b))
    assert a.events == [PeerSeen(b.id, b.address)]
    assert b.events == [PeerSeen(a.id, a.address)]
    assert b.endpoint.address_of(a.id) == a.address


@pytest.mark.parametrize(
    ("one", "other", "common"), [((1, 1), (1, 3), 1), ((1, 3), (2, 5), 3), ((2, 2), (2, 2), 2)]
)
def test_two_use_the_newest_protocol_that_both_speak(
    one: tuple[int, int], other: tuple[int, int], common: int
) -> None:
    network = Network(1)
    a, b = network.host(1, speaks=one), network.host(2, speaks=other)
    assert a.endpoint.protocol_of(b.id) == 0
    a.greet(b)
    assert network.run(10_000, lambda: both_connected(a, b))
    assert a.endpoint.protocol_of(b.id) == b.endpoint.protocol_of(a.id) == common


def test_without_a_common_protocol_both_say_so() -> None:
    network = Network(1)
    a, b = network.host(1, speaks=(1, 2)), network.host(2, speaks=(3, 4))
    a.greet(b)
    network.run(SECOND)
    assert not a.endpoint.connected(b.id)
    assert not b.endpoint.connected(a.id)
    words = "it speaks versions {} of the protocol, this process versions {}"
    assert a.events == [
        Notice("version_mismatch", b.address, words.format("3 to 4", "1 to 2")),
    ]
    assert b.events == [
        Notice("version_mismatch", a.address, words.format("1 to 2", "3 to 4")),
    ]


def test_both_greet_at_once() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2)
    a.greet(b)
    b.greet(a)
    network.run(SECOND)
    assert both_connected(a, b)
    assert not a.resets() + b.resets()
    sent = a.endpoint.stats.sent_datagrams + b.endpoint.stats.sent_datagrams
    assert sent <= 6, "they stop when they know each other"


def test_what_is_queued_before_the_meeting_arrives_in_order() -> None:
    network = Network(1, ROUGH)
    a, b = network.host(1), network.host(2)
    for number in range(20):
        a.send(b, b"%d" % number)
    network.run(SECOND)
    assert not b.incoming
    a.greet(b)
    assert network.run(10 * SECOND, lambda: len(b.bodies) == 20)
    assert b.bodies == [b"%d" % number for number in range(20)]


def test_a_restarted_peer_is_adopted_once_and_the_sender_is_told() -> None:
    network = Network(1)
    a, b = pair(network)
    a.send(b, b"before")
    network.run(SECOND)
    reborn = network.host(2)
    a.send(b, b"lost with the process")
    assert network.run(SECOND, lambda: "restarted" in a.resets())
    assert reborn.bodies == []
    a.send(reborn, b"after")
    network.run(SECOND)
    assert reborn.bodies == [b"after"]
    assert a.resets() == ["restarted"]
    assert [type(event) for event in a.events[-1:]] == [PeerSeen]


def test_a_restarted_peer_makes_itself_known_by_its_beacon() -> None:
    """It greets nobody, and nobody has anything to send it."""
    network = Network(1)
    a, _ = pair(network)
    reborn = network.host(2)
    reborn.send_to(a, b"beacon")
    network.run(SECOND)
    assert both_connected(a, reborn)
    assert a.resets() == ["restarted"]


@each_seal
@pytest.mark.parametrize("seed", range(10))
def test_replayed_datagrams_of_an_old_boot_never_flip_the_link(seal: Seal, seed: int) -> None:
    network = Network(seed, Faults(duplicate_percent=20, delay_us=(100, 5_000)))
    network.recorded = []
    a, b = pair(network, seal=seal)
    a.send(b, b"to the first", b"x" * 5_000)
    b.send(a, b"from the first", b"y" * 5_000)
    b.send_now(a, b"heartbeat of the first")
    network.run(SECOND)
    recorded, network.recorded = network.recorded, None
    reborn = network.host(2, seal=seal)
    reborn.greet(a)
    network.run(SECOND)
    assert both_connected(a, reborn)
    a.take_bodies()
    events = list(a.events)
    replay(network, a, recorded)
    replay(network, reborn, recorded)
    assert a.events == events
    assert not a.bodies
    assert not reborn.bodies
    a.send(reborn, b"still connected")
    reborn.send(a, b"likewise")
    network.run(SECOND)
    assert (reborn.bodies, a.bodies) == ([b"still connected"], [b"likewise"])
    assert a.resets() == ["restarted"]


@each_seal
def test_a_replay_cannot_bring_back_a_forgotten_peer(seal: Seal) -> None:
    network = Network(1)
    network.recorded = []
    a, b = pair(network, seal=seal)
    b.send(a, b"once")
    network.run(SECOND)
    recorded, network.recorded = network.recorded, None
    assert a.take_bodies() == [b"once"]
    del network.hosts[b.address]
    a.endpoint.forget(b.id)
    replay(network, a, recorded)
    assert not a.endpoint.connected(b.id)
    assert not a.bodies


def test_a_replay_to_one_that_forgot_and_came_back_is_old() -> None:
    """The replay window is new, but its floor is the datagram that proved presence."""
    network = Network(1)
    network.recorded = []
    a, b = pair(network)
    b.send(a, b"once")
    b.send_now(a, b"once")
    network.run(SECOND)
    a.endpoint.forget(b.id)
    a.take_bodies()
    a.greet(b)
    network.run(SECOND)
    assert both_connected(a, b)
    recorded, network.recorded = network.recorded, None
    replay(network, a, recorded)
    assert not a.bodies


def test_one_that_was_forgotten_is_told_and_begins_afresh() -> None:
    network = Network(1)
    a, b = pair(network)
    a.send(b, b"1")
    b.send(a, b"1")
    network.run(SECOND)
    b.endpoint.forget(a.id)
    a.send(b, b"lost with the memory")
    assert network.run(SECOND, lambda: a.resets() == ["forgotten"])
    a.send(b, b"2")
    b.send(a, b"2")
    network.run(SECOND)
    assert (b.bodies, a.bodies) == ([b"1", b"2"], [b"1", b"2"])
    assert a.resets() == ["forgotten"]
    assert not b.resets()


@pytest.mark.parametrize("seed", range(40))
def test_they_find_each_other_again_whatever_is_lost(seed: int) -> None:
    network = Network(seed, ROUGH)
    a, b = pair(network)
    for step in range(6):
        match network.random.randrange(3):
            case 0:
                b.endpoint.forget(a.id)
            case 1:
                a.endpoint.forget(b.id)
            case 2:
                b = network.host(2)
        b.take_bodies()
        word = b"word %d" % step
        a.endpoint.connect(b.id, b.address, network.now)
        send_until_heard(a, b, word)
        assert b.bodies[-1] == word


def send_until_heard(a: Host, b: Host, word: bytes) -> None:
    """As a user does: after a reset, send again what is still needed."""
    resets = -1
    while word not in b.bodies:
        if len(a.resets()) != resets:
            resets = len(a.resets())
            a.send(b, word)
        a.network.run(SECOND // 10)
        assert a.network.now < 100 * SECOND


def test_one_that_was_greeted_finds_the_way_by_itself() -> None:
    """The other side's last word is lost, and it has nothing more to say."""
    network = Network(1)
    a, b = network.host(1), network.host(2)
    network.intercept = lambda source, *_: source == b.address or a.endpoint.connected(b.id) == 0
    a.greet(b)
    network.run(SECOND)
    assert a.endpoint.connected(b.id)
    assert not b.endpoint.connected(a.id)
    network.intercept = lambda *_: True
    b.send(a, b"hello")
    network.run(SECOND)
    assert a.bodies == [b"hello"]


def test_what_waits_for_one_that_greeted_seeks_it_where_it_spoke() -> None:
    """Its address was known by its greeting alone, and when that came to nothing nobody asked."""
    network = Network(1)
    a, b = network.host(1), network.host(2)
    a.send(b, b"waits")
    passed: list[Address] = []
    network.intercept = lambda source, *_: not passed and not passed.append(source)
    b.greet(a)
    network.run(5 * SECOND)
    assert passed == [b.address]
    assert not both_connected(a, b)
    network.intercept = lambda *_: True
    network.run(2 * SECOND)
    assert b.bodies == [b"waits"]


def test_nobody_answers() -> None:
    network = Network(1)
    a = network.host(1)
    nobody = Host(network, a.id, ("10.0.0.9", 9), a.endpoint)
    a.endpoint.connect(nobody.id, nobody.address, network.now)
    a.settle()
    network.run(10 * SECOND)
    assert a.endpoint.stats.sent_datagrams == 4


def test_nobody_answers_and_something_waits() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2)
    del network.hosts[b.address]
    a.greet(b)
    a.send(b, b"waits")
    network.run(10 * SECOND)
    assert 10 <= a.endpoint.stats.sent_datagrams <= 20, "about one a second"
    network.run(40 * SECOND)
    assert a.resets() == ["idle"]
    assert a.endpoint.address_of(b.id) is None
    assert a.endpoint.deadline() is None


def test_an_idle_peer_is_forgotten() -> None:
    network = Network(1)
    a, b = pair(network)
    network.run(Timing().link_idle_us + SECOND)
    assert a.resets() == b.resets() == ["idle"]
    assert not a.endpoint.connected(b.id)
    assert a.endpoint.deadline() is None


def test_a_datagram_for_an_earlier_process_is_answered_now_and_then() -> None:
    network = Network(1)
    a, b = pair(network)
    reborn = network.host(2)
    network.intercept = lambda source, *_: source != a.address
    network.recorded = []
    for _ in range(100):
        a.send_now(b, b"for the first")
    for _, destination, data in list(network.recorded):
        if destination == reborn.address:
            reborn.on_datagram(data, a.address)
    assert reborn.endpoint.stats.sent_datagrams == 1
    assert reborn.endpoint.dropped["earlier process"] == 100
    assert not reborn.incoming


def test_a_peer_that_moved_is_followed() -> None:
    network = Network(1)
    a, b = pair(network)
    del network.hosts[b.address]
    moved = network.hosts["10.0.0.1", 99] = Host(network, b.id, ("10.0.0.1", 99), b.endpoint)
    moved.send(a, b"from elsewhere")
    network.run(SECOND)
    assert a.endpoint.address_of(b.id) == moved.address
    assert a.events[-1] == PeerSeen(b.id, moved.address)
    a.send(moved, b"to elsewhere")
    network.run(SECOND)
    assert moved.bodies == [b"to elsewhere"]
    assert not a.resets()


def test_a_late_datagram_from_the_old_place_moves_nobody_back() -> None:
    network = Network(1)
    a, b = pair(network)
    network.recorded = []
    network.intercept = lambda *_: False
    b.send_now(a, b"late")
    b.send_now(a, b"in time")
    (_, _, late), (_, _, in_time) = network.recorded
    a.on_datagram(in_time, ("10.0.0.1", 99))
    a.on_datagram(late, b.address)
    assert a.bodies == [b"in time", b"late"]
    assert a.endpoint.address_of(b.id) == ("10.0.0.1", 99)


def test_a_datagram_repeated_from_elsewhere_moves_nobody() -> None:
    network = Network(1)
    network.recorded = []
    a, b = pair(network)
    b.send_now(a, b"1")
    b.send_now(a, b"2")
    network.run(SECOND)
    for _, destination, data in network.recorded:
        if destination == a.address:
            a.on_datagram(data, ("6.6.6.6", 6))
    assert a.endpoint.address_of(b.id) == b.address


# --- one id, two processes --------------------------------------------------------------------


def test_a_third_party_notices_two_processes_of_one_id() -> None:
    network = Network(1)
    a, b = pair(network)
    network.faults = Faults(delay_us=(20_000, 20_000))  # beyond the rate limit of greetings
    twin = network.host(2, port=22)
    twin.greet(a)
    network.run(SECOND)
    assert a.resets() == ["restarted"]
    b.send_now(a, b"but I am alive")
    network.run(SECOND)
    assert a.notices() == ["same_id"]
    sent = a.endpoint.stats.sent_datagrams
    network.run(SECOND)
    assert a.endpoint.stats.sent_datagrams == sent, "nor an endless exchange of greetings"
    assert a.endpoint.address_of(twin.id) == twin.address
    assert a.resets() == ["restarted"], "no flapping"


def test_the_first_of_two_is_believed_again_once_the_second_has_fallen_silent() -> None:
    """The copy of a directory stops when it hears that it is one: the original must get through."""
    network = Network(1)
    a, b = pair(network)
    twin = network.host(2, port=22)
    twin.greet(a)
    network.run(SECOND // 10)
    del network.hosts[twin.address]
    silent_at = network.now
    while network.now < silent_at + Timing().suspect_ceiling_us - SECOND // 5:
        b.send(a, b"the copy may be there still")
        network.run(SECOND // 10)
    assert a.endpoint.address_of(b.id) == twin.address
    assert not a.bodies
    b.send(a, b"later")
    patience_us = 2 * Timing().link_retransmit_ceiling_us
    assert network.run(patience_us, lambda: a.bodies[-1:] == [b"later"])
    assert a.endpoint.address_of(b.id) == b.address
    assert a.resets() == ["restarted", "restarted"]


def test_the_two_hear_each_other_and_make_no_link() -> None:
    """What they have to say to each other bypasses the order, and is not fresh."""
    network = Network(1)
    a, twin = network.host(1), network.host(1, port=11)
    for _ in range(2):
        a.send_to(twin, b"who are you?")
        twin.send_to(a, b"the same")
        network.run(SECOND)
    assert a.events == [TwinHeard(twin.address)] * 2
    assert twin.events == [TwinHeard(a.address)] * 2
    assert a.incoming == [Incoming(a.id, twin.address, b"the same", False, False, 0, False)] * 2
    assert not a.endpoint.connected(twin.id)
    assert a.endpoint.deadline() is None, "nothing is kept of it"


def test_a_twin_of_another_cluster_may_be_told() -> None:
    """A directory that was copied before its cluster was born."""
    network = Network(1)
    a, twin = network.host(1, cluster_id=7), network.host(1, port=11, cluster_id=8)
    twin.send_to(a, b"who are you?")
    network.run(SECOND)
    assert a.incoming == [Incoming(a.id, twin.address, b"who are you?", False, True, 8, False)]


def test_the_past_of_this_process_is_no_link_either() -> None:
    """It is told as heard: whether it lives shows when it is asked."""
    network = Network(1)
    network.recorded = []
    a, b = pair(network)
    a.send(b, b"in order")
    a.send_now(b, b"at once")
    a.send_to(b, b"beacon")
    network.run(SECOND)
    recorded, network.recorded = network.recorded, None
    reborn = network.host(1)
    for source, _, data in recorded:
        if source == a.address:
            reborn.on_datagram(data, ("10.0.0.1", 77))
    assert set(reborn.events) == {TwinHeard(("10.0.0.1", 77))}
    assert {each.body for each in reborn.incoming} == {b"at once", b"beacon"}
    assert not any(each.fresh or each.known for each in reborn.incoming)
    network.run(SECOND)
    assert not reborn.endpoint.connected(a.id)


def test_a_greeting_that_was_overtaken_resets_nothing() -> None:
    """It bears the challenge of before the peer forgot us; a later one was heard already."""
    network = Network(1)
    a, b = pair(network)
    network.recorded = []
    b.endpoint.connect(a.id, ("10.0.0.9", 9), network.now)
    b.settle()
    ((_, _, overtaken),) = network.recorded
    b.endpoint.forget(a.id)
    b.greet(a)
    network.run(SECOND)
    assert a.resets() == ["forgotten"]
    a.on_datagram(overtaken, b.address)
    a.send(b, b"undisturbed")
    network.run(SECOND)
    assert b.bodies == [b"undisturbed"]
    assert a.resets() == ["forgotten"]
