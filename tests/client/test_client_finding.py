"""Finding servers: looking for one, the list of all, and asking every one what it is."""

from __future__ import annotations

import pytest
from client_world import CLIENT_ADDRESS, MILLISECOND, SECOND, World

from distinv.config import Limits
from distinv.entry import Ballot, NodeId
from distinv.errors import NoServer
from distinv.wire.codec import encode
from distinv.wire.messages import Beacon

# --- looking ----------------------------------------------------------------------------------


def test_without_a_server_a_call_waits_for_its_deadline() -> None:
    world = World()
    world.crash(1)
    call = world.submit(b"a", seconds=2)
    world.run_for(1_900 * MILLISECOND)
    assert call not in world.completions
    (end,) = world.answer(call)
    assert isinstance(end.error, NoServer)
    assert "shop" in str(end.error)


def test_a_server_that_comes_late_is_found() -> None:
    world = World()
    world.crash(1)
    call = world.submit(b"a")
    world.run_for(3 * SECOND)
    world.restart(1)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert world.now - began < 1_100 * MILLISECOND


def test_looking_for_servers_becomes_rare_and_a_call_wakes_it() -> None:
    world = World()
    world.crash(1)
    world.run_for(60 * SECOND)
    before = world.sent
    world.run_for(60 * SECOND)
    assert world.sent - before <= 25
    before = world.sent
    world.run_until(lambda: world.sent > before, world.now + 10 * SECOND)
    world.run_for(150 * MILLISECOND)
    world.restart(1)
    began = world.now
    world.answer(world.submit(b"a"))
    assert world.now - began < 200 * MILLISECOND


def test_a_settled_client_is_quiet() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.run_for(SECOND)
    before = world.sent
    world.run_for(20 * SECOND)
    assert world.sent == before


# --- the server list --------------------------------------------------------------------------


def test_the_list_that_is_pushed_replaces_what_was_known() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    assert [server.node for server in world.client.servers] == [1, 2, 3]
    world.members = world.servers[:2]
    world.lead(1)
    world.run_for(10 * MILLISECOND)
    assert [server.node for server in world.client.servers] == [1, 2]


def test_old_news_of_the_leader_are_ignored() -> None:
    world = World(3)
    world.lead(2)
    world.answer(world.submit(b"a"))
    world.leader = 3
    world.members = world.servers[1:2]
    world.servers[1].push_servers(term=1)
    world.servers[2].endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(3, 1)), world.now)
    world.leader = 2
    world.run_for(10 * MILLISECOND)
    assert world.client.leader == world.client.home == NodeId(2)
    assert len(world.client.servers) == 3
    world.servers[2].endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(3, 9)), world.now)
    world.run_for(10 * MILLISECOND)
    assert world.client.leader == NodeId(3)


def beacon_of(leader: int, term: int) -> Beacon:
    address = (f"10.0.0.{leader}", 4747)
    return Beacon("shop", 77, "", leader, address, Ballot(term, leader), 1, 0, ())


def test_the_list_is_bounded() -> None:
    world = World(limits=Limits(servers_max=3))
    world.answer(world.submit(b"a"))
    endpoint = world.servers[0].endpoint
    for leader in range(2, 50):
        endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(leader, leader)), world.now)
    world.run_for(10 * MILLISECOND)
    assert len(world.client.servers) == 3


def test_a_server_that_moved_is_found_at_its_new_address() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.move(1, ("10.1.1.1", 5_000))
    (end,) = world.answer(world.submit(b"a", seconds=3))
    assert end.value == b"ok:a"
    world.crash(1)
    world.move(1, ("10.2.2.2", 6_000))
    world.restart(1)
    (end,) = world.answer(world.submit(b"b", seconds=3))
    assert end.value == b"ok:b"


@pytest.mark.parametrize("idle", [False, True])
def test_a_leader_that_moved_is_found_where_the_home_says_that_it_is(idle: bool) -> None:
    """The client asked its former address until the call's deadline: the link to the process that
    was there still stood, or what the server itself had sent from there counted for more."""
    world = World(3)
    given = [server.address for server in world.servers]
    world.targets = lambda: given
    world.answer(world.submit(b"a"))
    world.lead(2)
    world.answer(world.submit(b"b"))
    world.crash(1)
    world.move(1, ("10.0.1.1", 4_900))
    world.restart(1)
    world.run_for((300 if idle else 1) * SECOND)
    assert world.client_endpoint.connected(NodeId(1)) is not idle
    world.lead(1)
    (end,) = world.answer(world.submit(b"c", seconds=3))
    assert end.value == b"ok:c"


# --- status -----------------------------------------------------------------------------------


def test_every_server_is_asked_what_it_is() -> None:
    world = World(3)
    world.lead(2)
    (end,) = world.answer(world.client.status(world.now, world.now + SECOND))
    assert isinstance(end.value, tuple)
    assert sorted(reply.node for reply in end.value) == [1, 2, 3]


def test_a_dead_server_is_left_out_of_the_status() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.crash(3)
    (end,) = world.answer(world.client.status(world.now, world.now + 10 * SECOND))
    assert isinstance(end.value, tuple)
    assert sorted(reply.node for reply in end.value) == [1, 2]
    world.crash(1)
    world.crash(2)
    (end,) = world.answer(world.client.status(world.now, world.now + SECOND))
    assert isinstance(end.error, NoServer)
