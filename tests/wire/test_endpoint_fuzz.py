"""Whatever arrives, the endpoint raises nothing, keeps its bounds, and goes on working.

The harshest sender is one that has the key and knows how datagrams are made.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lossy_network import SECOND, Faults, Host, Network, pair

from distinv.config import Limits
from distinv.wire.frame import (
    Header,
    encode_ack,
    encode_announce,
    encode_data,
    encode_header,
    encode_hello,
    encode_refuse,
    encode_unordered,
)
from distinv.wire.seal import KeySeal, PlainSeal, Seal

SEALS: list[Seal] = [PlainSeal(), KeySeal(bytes(32))]
LIMITS = Limits(
    message_bytes=1_000, link_window_fragments=32, link_reorder_bytes=2_000, peers_max=4
)

u32 = st.integers(0, 40) | st.integers(0, (1 << 32) - 1)
u64 = st.integers(0, 40) | st.integers(0, (1 << 64) - 1)
chunks = st.one_of(
    st.builds(encode_unordered, st.binary(max_size=20)),
    st.builds(encode_data, u32, u64, st.binary(min_size=1, max_size=300)),
    st.builds(encode_data, u32, u64, st.just(b"\0\0\0\2ok")),
    st.builds(encode_ack, u32, u64, st.lists(st.tuples(u64, u32), max_size=4)),
    st.builds(encode_announce, u32, u64),
    st.builds(encode_hello, st.integers(1, 9), u64, st.booleans()),
    st.builds(encode_refuse, u32),
    st.binary(max_size=8),
)


def works(a: Host, b: Host) -> None:
    """Whatever happened before, they can talk."""
    network = a.network
    network.hosts[a.address], network.hosts[b.address] = a, b
    b.take_bodies()
    for _ in range(40):
        a.endpoint.connect(b.id, b.address, network.now)
        a.send(b, b"works")
        if network.run(SECOND, lambda: b"works" in b.bodies):
            return
    raise AssertionError("they cannot talk any more")


@pytest.mark.parametrize("seal", SEALS, ids=["plain", "key"])
@settings(max_examples=100)
@given(data=st.binary(max_size=300))
def test_any_bytes(seal: Seal, data: bytes) -> None:
    a = Network(1).host(1, seal=seal)
    for datagram in (data, b"dI\1\0" + data, b"dI\1\1" + data, b"dI\1\0" + seal.fingerprint + data):
        a.on_datagram(datagram, ("10.0.0.9", 9))
    assert not a.incoming
    assert a.endpoint.stats.received_datagrams == sum(a.endpoint.dropped.values())


def conversation(seal: Seal) -> tuple[Host, Host, list[bytes]]:
    """Two that talk, and every datagram that reached the second or would have."""
    network = Network(1, Faults(loss_percent=20))
    network.recorded = []
    a, b = pair(network, seal=seal, limits=LIMITS)
    a.send(b, b"small", bytes(1_000), b"small")
    b.send(a, b"small")
    a.send_now(b, b"beat")
    network.run(SECOND)
    return a, b, [data for _, to, data in network.recorded if to == b.address]


@pytest.mark.parametrize("seal", SEALS, ids=["plain", "key"])
@pytest.mark.parametrize("seed", range(20))
def test_damaged_datagrams_have_no_effect(seal: Seal, seed: int) -> None:
    a, b, recorded = conversation(seal)
    random = Random(seed)
    peers, events = dict(b.endpoint._peers), list(b.events)
    incoming = list(b.incoming)
    for data in recorded * 3:
        damaged = bytearray(data)
        for _ in range(random.randint(1, 3)):
            # Not the magic, version, flags and fingerprint: those are not sealed but compared.
            damaged[random.randrange(8, len(data))] ^= 1 << random.randrange(8)
        b.on_datagram(bytes(damaged), a.address)
        b.on_datagram(bytes(damaged[: random.randrange(len(data))]), a.address)
    assert (dict(b.endpoint._peers), b.events, b.incoming) == (peers, events, incoming)
    b.endpoint.check()
    works(a, b)


@settings(max_examples=120)
@given(st.lists(st.tuples(st.lists(chunks, max_size=5), st.integers(0, 40_000)), max_size=12))
def test_a_hostile_peer_with_the_key(datagrams: list[tuple[list[bytes], int]]) -> None:
    """It is adopted, and sends chunks that no endpoint would."""
    network = Network(1)
    a, b = pair(network, limits=LIMITS)
    b.send(a, bytes(900), bytes(900))
    hostile = a.endpoint
    del network.hosts[a.address]
    for contents, pause_us in datagrams:
        body = b"".join(contents)
        b.on_datagram(hostile._datagram(b.endpoint._boot, body), a.address)
        b.endpoint.check()
        network.run(pause_us)
        b.endpoint.check()
    network.run(SECOND)
    b.endpoint.check()
    works(network.host(3, limits=LIMITS), b)


@settings(max_examples=120)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 6),  # sender
            st.integers(1, 3),  # its boot
            st.sampled_from([0, 77, 78]),  # the receiver's: unknown, right, wrong
            st.integers(1, 50),  # counter
            st.lists(chunks, max_size=3),
        ),
        max_size=20,
    )
)
def test_hostile_strangers_with_the_key(
    datagrams: list[tuple[int, int, int, int, list[bytes]]],
) -> None:
    """Ids, boots and counters out of the air, this process's own among them."""
    network = Network(1)
    seal = PlainSeal()
    b = network.host(2, boot=77, limits=LIMITS)
    for sender, boot, receiver_boot, counter, contents in datagrams:
        header = encode_header(
            Header(0, seal.fingerprint, 0, sender, boot, receiver_boot, counter)  # type: ignore[arg-type]
        )
        body = b"".join(contents)
        b.on_datagram(header + seal.seal(boot, counter, header, body), ("10.0.0.9", sender))
        b.endpoint.check()
        network.run(1_000)
    assert not b.bodies, "nobody proved to be there"
    works(network.host(9, limits=LIMITS), b)
