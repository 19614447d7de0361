"""FIFO and exactly once, over networks that lose a third, double and reorder: seed by seed."""

from __future__ import annotations

from itertools import groupby
from random import Random

import pytest
from lossy_network import CLEAN, ROUGH, SECOND, Faults, Host, Network, pair

from distinv.wire.frame import HEADER_BYTES, Data, parse_chunks_untrusted
from distinv.wire.seal import KeySeal

LOSSY = Faults(loss_percent=10, duplicate_percent=5, delay_us=(100, 5_000))


def words(random: Random, count: int, size_max: int = 200) -> list[bytes]:
    """Numbered messages of various sizes."""
    return [b"%06d" % number + bytes(random.randrange(size_max)) for number in range(count)]


@pytest.mark.parametrize("seed", range(100))
def test_small_messages_both_ways(seed: int) -> None:
    network = Network(seed, ROUGH)
    seal = KeySeal(bytes(32)) if seed % 4 == 0 else None
    a, b = pair(network, seal=seal)
    random = network.random
    ours, theirs = words(random, 60), words(random, 60)
    to_send = {a: list(ours), b: list(theirs)}
    while to_send[a] or to_send[b]:
        for host, other in ((a, b), (b, a)):
            count = random.randrange(8)
            host.send(other, *to_send[host][:count])
            del to_send[host][:count]
            host.send_now(other, b"beat %d" % random.getrandbits(60))
        network.run(random.choice([10, 1_000, 30_000]))

    def ordered(host: Host) -> list[bytes]:
        return [body for body in host.bodies if not body.startswith(b"beat")]

    network.run(10 * SECOND)
    assert ordered(a) == theirs
    assert ordered(b) == ours
    for host in (a, b):
        beats = [body for body in host.bodies if body.startswith(b"beat")]
        assert len(beats) == len(set(beats)), "at most once"
        assert not host.resets()
        assert host.endpoint._timers == {}, "nothing is left to do"


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("faults", [LOSSY, ROUGH], ids=["10 %", "30 %"])
def test_large_messages_among_small_ones(faults: Faults, seed: int) -> None:
    network = Network(seed, faults)
    a, b = pair(network)
    bodies = [b"before", network.random.randbytes(300_000 + seed), b"", b"after"]
    a.send(b, *bodies)
    assert network.run(60 * SECOND, lambda: len(b.bodies) == 4)
    assert b.bodies == bodies


@pytest.mark.parametrize("faults", [CLEAN, LOSSY, ROUGH], ids=["0 %", "10 %", "30 %"])
def test_the_largest_message(faults: Faults) -> None:
    network = Network(1, faults)
    a, b = pair(network)
    body = network.random.randbytes(4 << 20)
    assert a.send(b, body)
    assert network.run(60 * SECOND, lambda: bool(b.bodies))
    assert b.bodies == [body]


@pytest.mark.parametrize("seed", range(20))
def test_three_at_once(seed: int) -> None:
    network = Network(seed, ROUGH)
    hosts = [network.host(number) for number in (1, 2, 3)]
    for host in hosts:
        for other in hosts:
            if other is not host:
                host.greet(other)
                host.send(other, *(b"%d to %d: %d" % (host.id, other.id, i) for i in range(30)))
    assert network.run(60 * SECOND, lambda: all(len(host.bodies) == 60 for host in hosts))
    for host in hosts:
        for other in hosts:
            heard = [incoming.body for incoming in host.incoming if incoming.peer == other.id]
            assert heard == [
                b"%d to %d: %d" % (other.id, host.id, i) for i in range(30) if other is not host
            ]


def is_data(data: bytes) -> bool:
    chunks = parse_chunks_untrusted(data[HEADER_BYTES:-4])
    return any(isinstance(chunk, Data) for chunk in chunks)


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_a_lost_last_message_is_noticed(losses: int) -> None:
    """Nothing is sent behind it that could reveal the gap, nor is the first repetition heard."""
    network = Network(1)
    a, b = pair(network)
    left = losses

    def lose(source: object, destination: object, data: bytes) -> bool:
        nonlocal left
        left -= is_data(data)
        return left < 0 or not is_data(data)

    network.intercept = lose
    a.send(b, b"the last")
    assert network.run(SECOND, lambda: b.bodies == [b"the last"])
    network.run(SECOND)
    assert b.bodies == [b"the last"]


@pytest.mark.parametrize("seed", range(60))
def test_resets_in_the_middle(seed: int) -> None:
    """Of every stream a prefix arrives, streams do not mix, and the last one arrives whole."""
    network = Network(seed, ROUGH)
    a, b = pair(network)
    random = network.random
    streams = 6
    for stream in range(streams):
        for number in range(40):
            a.send(b, b"%d %d " % (stream, number) + bytes(random.randrange(1_000)))
        if stream < streams - 1:
            network.run(random.randrange(200_000))
            a.endpoint.reset(b.id, network.now)

    def received() -> list[tuple[int, int]]:
        heads = [body.split(b" ")[:2] for body in b.bodies]
        return [(int(stream), int(number)) for stream, number in heads]

    last = b"%d 39 " % (streams - 1)
    assert network.run(60 * SECOND, lambda: b.bodies[-1:] != [] and b.bodies[-1].startswith(last))
    network.run(SECOND)
    grouped = [
        (stream, [number for _, number in items])
        for stream, items in groupby(received(), key=lambda item: item[0])
    ]
    assert [stream for stream, _ in grouped] == sorted({stream for stream, _ in grouped})
    for _, numbers in grouped:
        assert numbers == list(range(len(numbers)))
    assert grouped[-1] == (streams - 1, list(range(40)))


@pytest.mark.parametrize("seed", range(60))
def test_receivers_restart_in_the_middle(seed: int) -> None:
    """The sender is told of every restart; no process hears a stream but from its beginning."""
    network = Network(seed, ROUGH)
    a, b = pair(network)
    random = network.random
    lives = [b]
    for life in range(4):
        a.send(b, *(b"%d %d " % (life, number) + bytes(2_000) for number in range(20)))
        network.run(random.randrange(300_000))
        b = network.host(2)
        lives.append(b)
        b.endpoint.connect(a.id, a.address, network.now)
        b.send(a, b"here again")
        assert network.run(60 * SECOND, lambda: len(a.resets()) == len(lives) - 1)
    a.send(b, *(b"4 %d " % number for number in range(20)))
    assert network.run(60 * SECOND, lambda: len(b.bodies) == 20)
    for life, host in enumerate(lives):
        heads = [tuple(map(int, body.split(b" ")[:2])) for body in host.bodies]
        assert heads == [(life, number) for number in range(len(heads))]
    assert a.resets() == ["restarted"] * 4


@pytest.mark.parametrize("seed", range(5))
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    runs = []
    for _ in range(2):
        network = Network(seed, ROUGH)
        network.recorded = []
        a, b = pair(network)
        a.send(b, bytes(50_000))
        network.run(SECOND)
        runs.append(network.recorded)
    assert runs[0] == runs[1]
    assert len(runs[0]) > 50
