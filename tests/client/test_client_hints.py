"""Whoever names leaders and addresses cannot make a client send more than it was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from client_world import CLIENT_ADDRESS, MILLISECOND, SECOND, World

from distinv.entry import Ballot, NodeId
from distinv.transport.api import Address
from distinv.wire.codec import encode
from distinv.wire.messages import Beacon

BEACONS_PER_DATAGRAM = 30

Naming = Callable[[int], tuple[int, Address]]
"""The `n`-th leader that is named, and its address."""


def known_servers(n: int) -> tuple[int, Address]:
    """Servers to which the client has a link, somewhere else each time."""
    return 2 + n % 2, (f"9.9.9.{n % 200}", 53)


def few_strangers(n: int) -> tuple[int, Address]:
    return 100 + n % 14, ("9.9.9.9", 1 + n % 60_000)


def only_strangers(n: int) -> tuple[int, Address]:
    return 100 + n, ("9.9.9.9", 1 + n % 60_000)


def one_address(n: int) -> tuple[int, Address]:
    return 100 + n, ("9.9.9.9", 53)


def flood(world: World, naming: Naming, per_turn: int) -> Iterator[None]:
    """The home sends beacons of rising ballots, so many in every turn; one turn for each step."""
    home = world.servers[0].endpoint
    n = 0
    while True:
        for _ in range(per_turn):
            n += 1
            leader, address = naming(n)
            ballot = Ballot(10 + n, leader)
            beacon = Beacon("shop", 77, "s", leader, address, ballot, 1, 0, ())
            home.send_to(CLIENT_ADDRESS, encode(beacon), world.now)
        yield


@pytest.mark.parametrize("per_turn", [1, BEACONS_PER_DATAGRAM])
@pytest.mark.parametrize("naming", [known_servers, few_strangers, only_strangers, one_address])
def test_a_flood_of_leaders_is_not_multiplied(naming: Naming, per_turn: int) -> None:
    """A datagram of thirty beacons made a client send 44, with 2.8 times the bytes."""
    world = World(3)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    received, sent = world.servers_sent_bytes, world.client_sent_bytes
    turns = flood(world, naming, per_turn)
    for _ in range(300):
        next(turns)
        world.run_for(MILLISECOND)
    world.run_for(2 * SECOND)
    assert world.client_sent_bytes - sent <= world.servers_sent_bytes - received
    assert 0 < world.astray <= 300, "no more than it got"
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(1)


def test_a_leader_named_amid_a_flood_is_found() -> None:
    """It is asked in its turn, however many others were named just before it."""
    world = World(3)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    turns = flood(world, only_strangers, BEACONS_PER_DATAGRAM)
    for _ in range(20):
        next(turns)
        world.run_for(MILLISECOND)
    world.log.ballot = 10_000
    world.lead(3)
    began = world.now
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(3)
    assert world.now - began < world.timing.heartbeat_us
