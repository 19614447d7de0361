"""A cluster that grows and shrinks around a client: who leaves, who comes, whose address it was."""

from __future__ import annotations

from client_script import serving
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import Ballot, NodeId
from distinv.errors import NoLeader
from distinv.wire.messages import ServerInfo, Servers


def add_server(world: World, number: int) -> FakeServer:
    server = FakeServer(world, number)
    world.servers.append(server)
    world.by_node[number] = server
    world.by_address[server.address] = server
    return server


def push_list(source: FakeServer, members: list[FakeServer], leader: int, term: int) -> None:
    infos = tuple(
        ServerInfo(each.node, each.name, each.address, "follower", 0, True) for each in members
    )
    for client in source.clients:
        source.send(client, Servers(leader, Ballot(term, leader), infos))


def known(world: World) -> list[int]:
    return [int(each.node) for each in world.client.servers]


def test_a_home_that_left_is_used_until_it_stops_and_then_forgotten() -> None:
    world = World(4)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.members = world.servers[1:]
    world.lead(2)
    world.by_node[2].alive = False  # the one that is named is not there yet
    world.run_for(10 * MILLISECOND)
    assert world.client.home == NodeId(1)
    world.by_node[2].alive = True
    world.crash(1)
    began = world.now
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(2)
    assert world.now - began < world.timing.client_silence_us + world.timing.client_ping_us
    world.lead(2)
    world.run_for(10 * MILLISECOND)
    assert sorted(known(world)) == [2, 3, 4]


def test_who_was_not_there_at_first_is_found_by_the_list_alone() -> None:
    """The addresses that the client was given are those of servers that are gone by now."""
    world = World(2)
    given = [server.address for server in world.servers]
    world.targets = lambda: given
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    newcomers = [add_server(world, number) for number in (3, 4)]
    world.members = newcomers
    world.lead(1)
    world.run_for(10 * MILLISECOND)
    world.crash(1)
    world.crash(2)
    world.lead(4, push=False)
    (end,) = world.answer(world.submit(b"a", seconds=3))
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(4)


def test_an_address_may_be_anothers_by_now() -> None:
    """A server whose disk was lost comes back under its address with a new id: it is no home that
    answers, and no server that moved."""
    world = World(2)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    old = world.by_node[1]
    world.crash(1)
    world.servers.remove(old)
    new = FakeServer(world, 9)
    new.address = old.address
    world.servers.append(new)
    world.by_node[9] = world.by_address[new.address] = new
    world.members = world.servers
    world.lead(2)
    call = world.submit(b"a", seconds=3)
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(2)
    world.lead(9)
    (end,) = world.answer(world.submit(b"b", seconds=3))
    assert end.value == b"ok:b"
    assert world.client.home == NodeId(9)
    assert sorted(known(world)) == [2, 9]
    assert world.log.effects == [b"0", b"a", b"b"]


def test_the_list_of_the_home_counts_for_more_than_that_of_another() -> None:
    """The other cannot hear the leader and does not know it yet: its list was of the same ballot,
    and a newcomer was forgotten until the next change."""
    world = World(3)
    world.answer(world.submit(b"0"))
    world.answer(world.client.status(world.now, world.now + SECOND))  # so the others know it, too
    world.run_for(SECOND)
    newcomer = add_server(world, 4)
    push_list(world.servers[0], [*world.servers[:3], newcomer], leader=1, term=1)
    world.run_for(10 * MILLISECOND)
    push_list(world.servers[1], world.servers[:3], leader=1, term=1)
    world.run_for(10 * MILLISECOND)
    assert known(world) == [1, 2, 3, 4]
    push_list(world.servers[1], world.servers[1:], leader=2, term=2)
    world.run_for(10 * MILLISECOND)
    assert sorted(known(world)) == [1, 2, 3, 4], "the home is kept while it is the home"
    assert world.client.leader == NodeId(2)


def test_a_replica_alone_in_reach_answers_reads_and_names_the_leader() -> None:
    world = World(3)
    world.servers[2].intercept = serving(3)
    for server in world.servers[:2]:
        world.cut.add(server.address)
    (end,) = world.answer(world.query(b"q"))
    assert end.value == b"answer:q"
    assert (world.client.home, world.client.leader) == (NodeId(3), NodeId(1))
    world.servers[2].intercept = None
    (end,) = world.answer(world.submit(b"a", seconds=1))
    assert isinstance(end.error, NoLeader)
    world.cut.clear()
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    assert world.client.home == NodeId(1)
