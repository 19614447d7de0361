"""The endpoint: what its users see, and what it says of strangers."""

from __future__ import annotations

import pytest
from attrs import evolve
from lossy_network import CLEAN, SECOND, Faults, Host, Network, both_connected, pair

from distinv.config import Limits, Timing
from distinv.errors import ConfigError
from distinv.wire.endpoint import LinkReset, Notice
from distinv.wire.frame import HEADER_BYTES, Announce, Data, Unordered, parse_chunks_untrusted
from distinv.wire.seal import KeySeal, PlainSeal


def chunks_of(data: bytes) -> list[object]:
    return list(parse_chunks_untrusted(data[HEADER_BYTES:-4]))


def sent_by(host: Host) -> list[list[object]]:
    """What one flush makes, as chunks, without sending it."""
    return [chunks_of(data) for _, data in host.endpoint.flush(host.network.now)]


# --- packing ----------------------------------------------------------------------------------


def test_many_small_messages_share_a_datagram() -> None:
    network = Network(1)
    a, b = pair(network)
    for _ in range(64):
        a.endpoint.send(b.id, bytes(150), network.now)
    datagrams = a.endpoint.flush(network.now)
    assert len(datagrams) == 64 * 154 // 1_100 + 1


def test_what_is_unordered_goes_first() -> None:
    network = Network(1)
    a, b = pair(network)
    a.endpoint.send(b.id, b"ordered", network.now)
    a.endpoint.send_now(b.id, b"heartbeat", network.now)
    ((first, second),) = sent_by(a)
    assert first == Unordered(b"heartbeat")
    assert isinstance(second, Data)


def test_unordered_messages_that_do_not_fit_one_datagram_take_more() -> None:
    network = Network(1)
    a, b = pair(network)
    bodies = [bytes([number]) * 400 for number in range(5)]
    for body in bodies:
        a.endpoint.send_now(b.id, body, network.now)
    sent = [[Unordered(body) for body in part] for part in (bodies[:2], bodies[2:4], bodies[4:])]
    assert sent_by(a) == sent


def test_an_acknowledgement_rides_on_an_answer() -> None:
    network = Network(1)
    a, b = pair(network)
    a.send(b, b"question")
    assert network.run(SECOND, lambda: bool(b.bodies))
    b.send(a, b"answer")
    sent = a.endpoint.stats.received_datagrams
    network.run(2_000)
    assert a.endpoint.stats.received_datagrams == sent + 1
    assert a.endpoint._peers[b.id]._sender.idle


@pytest.mark.parametrize("payload_bytes", [576, 1_200, 32_000, 65_000])
def test_every_payload_size(payload_bytes: int) -> None:
    network = Network(1)
    a, b = pair(network, payload_bytes=payload_bytes)
    bodies = [bytes(size) for size in (0, 1, payload_bytes, 300_000, 2, 700)]
    a.send(b, *bodies)
    a.send_now(b, bytes(payload_bytes - HEADER_BYTES - 4 - 3))
    assert network.run(SECOND, lambda: len(b.bodies) == len(bodies) + 1)
    assert [body for body in b.bodies if len(body) in map(len, bodies)] == bodies
    assert not a.endpoint.dropped


@pytest.mark.parametrize("payload_bytes", [0, 575, 70_000])
def test_impossible_payload_sizes(payload_bytes: int) -> None:
    with pytest.raises(ConfigError):
        Network(1).host(1, payload_bytes=payload_bytes)


# --- unordered messages -----------------------------------------------------------------------


def test_send_to_reaches_whoever_lives_there_and_proves_nothing() -> None:
    network = Network(1)
    a, b = network.host(1, cluster_id=7), network.host(2)
    a.send_to(b, b"seek")
    network.run(SECOND)
    (incoming,) = b.incoming
    assert (incoming.peer, incoming.address, incoming.body) == (a.id, a.address, b"seek")
    assert not incoming.fresh
    assert not incoming.foreign
    assert incoming.cluster_id == 7
    assert not b.endpoint.connected(a.id)
    assert b.endpoint.deadline() is None, "a stranger leaves no trace"


def test_send_to_counts_once_where_its_sender_is_known() -> None:
    network = Network(1)
    a, b = pair(network)
    network.faults = Faults(duplicate_percent=100)
    a.send_to(b, b"to everybody")
    network.run(SECOND)
    (incoming,) = b.incoming
    assert incoming.body == b"to everybody"
    assert incoming.known
    assert not incoming.fresh
    assert b.endpoint.dropped["replay"] > 0


def test_send_now_to_a_stranger_is_dropped_but_seeks_it() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2)
    a.send_now(b, b"dropped")
    assert a.endpoint.dropped == {"unknown peer": 1}
    network.intercept = lambda *_: False
    a.greet(b)
    network.run(10 * SECOND)
    network.intercept = lambda *_: True
    a.send_now(b, b"dropped too")
    network.run(SECOND)
    assert both_connected(a, b)
    a.send_now(b, b"arrives")
    network.run(SECOND)
    assert b.bodies == [b"arrives"]


def test_what_does_not_fit_a_datagram_is_dropped() -> None:
    network = Network(1)
    a, b = pair(network)
    a.send_now(b, bytes(1_200))
    a.send_to(b, bytes(1_200))
    network.run(SECOND)
    assert a.endpoint.dropped == {"unordered message too long": 2}
    assert not b.incoming


# --- bounds -----------------------------------------------------------------------------------


def test_a_full_queue_resets_the_link() -> None:
    network = Network(1)
    limits = Limits(link_queue_bytes=10_000, link_window_bytes=5_000)
    a, b = pair(network, limits=limits)
    network.intercept = lambda *_: False
    assert all(a.endpoint.send(b.id, b"%9d" % number, network.now) for number in range(769))
    assert not a.endpoint.send(b.id, b"too many", network.now)
    assert a.endpoint.take_events() == [LinkReset(b.id, "queue_full")]
    network.intercept = lambda *_: True
    a.send(b, b"afterwards")
    network.run(SECOND)
    assert b.bodies == [b"afterwards"]


def test_messages_have_a_bound() -> None:
    network = Network(1)
    a, b = pair(network, limits=Limits(message_bytes=100))
    assert a.send(b, bytes(100))
    with pytest.raises(ValueError, match="101 bytes"):
        a.send(b, bytes(101))


def test_a_peer_with_a_lower_bound_refuses() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2, limits=Limits(message_bytes=100))
    a.greet(b)
    network.run(SECOND)
    a.send(b, bytes(100), bytes(101), b"behind")
    assert network.run(SECOND, lambda: a.resets() == ["refused"])
    assert b.bodies == [bytes(100)]
    a.send(b, b"again")
    network.run(SECOND)
    assert b.bodies == [bytes(100), b"again"]


def test_peers_are_bounded_and_the_longest_unheard_goes() -> None:
    network = Network(1)
    server = network.host(1, limits=Limits(peers_max=3))
    clients = [network.host(number) for number in range(2, 6)]
    for client in clients[:3]:
        client.greet(server)
        network.run(SECOND)
    clients[0].send(server, b"alive")
    network.run(SECOND)
    clients[3].greet(server)
    network.run(SECOND)
    connected = [server.endpoint.connected(client.id) for client in clients]
    assert connected == [True, False, True, True]
    assert server.events[-2] == LinkReset(clients[1].id, "evicted")


# --- strangers --------------------------------------------------------------------------------


def test_an_own_datagram_that_comes_back_is_dropped() -> None:
    network = Network(1)
    a = network.host(1)
    a.send_to(a, b"broadcast")
    network.run(SECOND)
    assert not a.incoming
    assert a.endpoint.dropped == {"own": 1}
    assert not a.events


def test_both_sides_name_a_wrong_key() -> None:
    network = Network(1)
    a, b = network.host(1, seal=KeySeal(bytes(32))), network.host(2, seal=KeySeal(b"1" * 32))
    c = network.host(3)
    a.send_to(b, b"beacon")
    c.send_to(a, b"beacon")
    network.run(SECOND)
    mine, theirs = KeySeal(bytes(32)).fingerprint.hex(), KeySeal(b"1" * 32).fingerprint.hex()
    assert (
        Notice("wrong_key", b.address, f"it has the key {theirs}, this process has the key {mine}")
        in a.events
    )
    assert (
        Notice("wrong_key", a.address, f"it has the key {mine}, this process has the key {theirs}")
        in b.events
    )
    assert c.events == [
        Notice("wrong_key", a.address, f"it has the key {mine}, this process has no key")
    ]
    assert not a.incoming + b.incoming + c.incoming


def test_a_wrong_key_is_answered_now_and_then_and_answers_never() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2, seal=KeySeal(bytes(32)))
    for _ in range(100):
        a.send_to(b, b"beacon")
    network.run(SECOND // 2)
    assert b.endpoint.stats.sent_datagrams == 1
    assert a.endpoint.stats.sent_datagrams == 100
    assert (a.notices(), b.notices()) == (["wrong_key"], ["wrong_key"])
    network.run(SECOND)
    a.send_to(b, b"beacon")
    network.run(SECOND)
    assert b.endpoint.stats.sent_datagrams == 2


def test_a_forged_answer_accuses_nobody() -> None:
    network = Network(1)
    network.recorded = []
    a, b = network.host(1), network.host(2, seal=KeySeal(bytes(32)))
    bystander = network.host(3)
    bystander.send_to(a, b"so that it has sent something")
    a.send_to(b, b"beacon")
    network.run(SECOND)
    (answer,) = [data for source, _, data in network.recorded if source == b.address]
    bystander.on_datagram(answer, b.address)
    assert not bystander.notices()
    assert bystander.endpoint.dropped == {"wrong key unasked": 1}
    damaged = answer[:-1] + bytes([answer[-1] ^ 1])
    a.on_datagram(damaged, ("10.0.0.9", 9))
    assert a.notices() == ["wrong_key"]
    assert a.endpoint.dropped == {"checksum": 1}


def test_another_version_is_named() -> None:
    network = Network(1)
    a, b = network.host(1), network.host(2)
    for _ in range(2):
        b.on_datagram(b"dI\x09" + b"who knows what stands in a later header?" * 3, a.address)
    assert b.events == [
        Notice(
            "version_mismatch",
            a.address,
            "it speaks version 9 of the protocol, this process version 1",
        )
    ]
    assert b.endpoint.dropped == {"version": 2}


def test_another_cluster_is_heard_but_not_believed() -> None:
    network = Network(1)
    a, b = pair(network)
    a.endpoint.cluster_id, b.endpoint.cluster_id = 10, 11
    a.send(b, b"ordered")
    a.send_now(b, b"unordered")
    network.run(SECOND)
    (incoming,) = b.incoming
    assert (incoming.body, incoming.fresh, incoming.foreign) == (b"unordered", False, True)
    assert incoming.cluster_id == 10
    assert b.notices() == ["foreign_cluster"]
    c = network.host(3, cluster_id=12)
    c.greet(b)
    network.run(SECOND)
    assert not b.endpoint.connected(c.id)


def test_a_process_without_a_cluster_speaks_with_all() -> None:
    network = Network(1)
    a, b = network.host(1, cluster_id=0), network.host(2, cluster_id=5)
    a.greet(b)
    a.send(b, b"hello")
    network.run(SECOND)
    assert b.bodies == [b"hello"]
    assert b.incoming[0].cluster_id == 0


def test_warnings_are_remembered_for_a_bounded_number_of_addresses() -> None:
    network = Network(1)
    a = network.host(1, limits=Limits(notices_max=5))
    for port in range(1, 100):
        a.on_datagram(b"dI\x09" + bytes(60), ("10.0.0.2", port))
    assert len(a.notices()) == 99
    assert len(a.endpoint._noticed) == 5


@pytest.mark.parametrize("seal", [PlainSeal(), KeySeal(bytes(32))], ids=["plain", "key"])
def test_damage_and_repetition_are_counted(seal: PlainSeal | KeySeal) -> None:
    network = Network(1)
    a, b = pair(network, seal=seal)
    network.recorded = []
    a.send_now(b, b"once")
    network.run(SECOND)
    ((_, _, data),) = network.recorded[:1]
    b.on_datagram(data, a.address)
    b.on_datagram(data[:-1] + bytes([data[-1] ^ 1]), a.address)
    b.on_datagram(b"noise", a.address)
    assert b.bodies == [b"once"]
    reason = "checksum" if isinstance(seal, PlainSeal) else "seal"
    assert b.endpoint.dropped == {"replay": 1, reason: 1, "datagram length": 1}


# --- ends -------------------------------------------------------------------------------------


def test_a_reset_in_the_middle_of_a_message() -> None:
    network = Network(1)
    a, b = pair(network, limits=Limits(link_window_bytes=8_000))
    a.send(b, b"whole", b"x" * 100_000)
    network.run(1_000)
    a.endpoint.reset(b.id, network.now)
    a.send(b, b"afterwards")
    network.run(SECOND)
    assert b.bodies == [b"whole", b"afterwards"]
    assert not a.resets(), "who resets knows it"


def test_a_reset_is_announced() -> None:
    network = Network(1)
    a, b = pair(network)
    a.endpoint.reset(b.id, network.now)
    ((announcement,),) = sent_by(a)
    assert isinstance(announcement, Announce)
    assert announcement.next_seq == 0


def test_after_a_reset_the_receiver_stops_asking() -> None:
    """It had gaps of the abandoned epoch; nothing is sent in the new one."""
    network = Network(1)
    a, b = pair(network)
    network.intercept = lambda source, destination, data: network.random.random() < 0.5
    a.send(b, bytes(20_000))
    network.run(500)
    network.intercept = lambda source, destination, data: source != a.address
    a.endpoint.reset(b.id, network.now)
    a.settle()  # this word is lost, too
    network.intercept = lambda *_: True
    network.run(SECOND)
    b.endpoint.stats.sent_datagrams = 0
    network.run(10 * SECOND)
    assert b.endpoint.stats.sent_datagrams == 0


def test_a_dead_peer_costs_little() -> None:
    network = Network(1)
    a, b = pair(network)
    del network.hosts[b.address]
    a.send(b, bytes(1_000_000))
    network.run(5 * SECOND)
    a.endpoint.stats.sent_datagrams = 0
    network.run(10 * SECOND)
    assert a.endpoint.stats.sent_datagrams <= 25
    network.run(30 * SECOND)
    assert a.resets() == ["idle"]


def test_idle_links_are_silent() -> None:
    network = Network(1)
    a, b = pair(network, timing=evolve(Timing(), link_idle_us=600 * SECOND))
    a.send(b, b"question")
    b.send(a, b"answer")
    network.run(SECOND)
    sent = a.endpoint.stats.sent_datagrams + b.endpoint.stats.sent_datagrams
    network.run(500 * SECOND)
    assert a.endpoint.stats.sent_datagrams + b.endpoint.stats.sent_datagrams == sent


def test_forgetting_is_silent() -> None:
    network = Network(1, CLEAN)
    a, b = pair(network)
    a.send(b, b"x")
    a.endpoint.forget(b.id)
    assert a.endpoint.flush(network.now) == []
    assert a.endpoint.deadline() is None
    assert not a.resets()
    a.endpoint.forget(b.id)
    a.endpoint.reset(b.id, network.now)
