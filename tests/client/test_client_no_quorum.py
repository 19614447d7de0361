"""A server that is cut off from the others and still reached: left at once, used if alone."""

from __future__ import annotations

from client_script import leaderless
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import Ballot, NodeId
from distinv.errors import NoLeader
from distinv.wire.codec import encode
from distinv.wire.messages import Beacon, Message, Pong, Query, ServerInfo, Servers


def cut_off(world: World, number: int) -> None:
    """It has lost the others, and tells its clients so."""
    server = world.by_node[number]
    server.intercept = leaderless
    infos = tuple(
        ServerInfo(each.node, each.name, each.address, "unreachable", 0, True)
        for each in world.servers
    )
    ballot = Ballot(world.log.ballot, 1)
    for client in server.clients:
        server.send(client, Servers(0, ballot, infos))


def announce_alone(world: World, number: int) -> None:
    """What it says to whoever listens, every 250 ms."""
    server = world.by_node[number]
    beacon = Beacon("shop", 77, server.name, 0, None, Ballot(world.log.ballot, 1), 1, 0, ())
    server.endpoint.send_to(("10.0.0.100", 5000), encode(beacon), world.now)


def test_an_idle_client_leaves_a_home_that_says_it_has_no_leader() -> None:
    """And does not come back to it while another serves."""
    world = World(3)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.lead(2, push=False)
    cut_off(world, 1)
    began = world.now
    world.run_until(lambda: world.client.home == NodeId(2), world.now + SECOND)
    assert world.now - began < world.timing.heartbeat_us
    heard = len(world.servers[0].heard)
    for _ in range(40):
        announce_alone(world, 1)
        world.run_for(250 * MILLISECOND)
        (end,) = world.answer(world.submit(b"a"))
        assert end.error is None
    assert world.client.home == NodeId(2)
    assert len(world.servers[0].heard) == heard


def test_a_follower_cut_off_from_a_leader_that_serves_is_left_for_it() -> None:
    """The client knows that leader already, so nothing that it hears is news."""
    world = World(3)
    world.lead(2)
    world.cut.add(world.servers[1].address)
    world.targets = lambda: [world.servers[0].address]
    world.query(b"q", linearizable=False)
    world.run_for(SECOND)
    assert world.client.home == NodeId(1)
    assert world.client.leader == NodeId(2)
    world.cut.clear()
    cut_off(world, 1)
    began = world.now
    world.run_until(lambda: world.client.home == NodeId(2), world.now + SECOND)
    assert world.now - began < world.timing.heartbeat_us


def test_the_word_of_a_home_without_a_leader_counts_though_its_list_is_old() -> None:
    """It lost a leader of an earlier ballot than the client has heard of since."""
    world = World(2)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.cut.add(world.servers[1].address)
    world.leader = 2
    world.log.ballot = 9
    world.servers[0].endpoint.send_to(
        ("10.0.0.100", 5000), encode(world.servers[0]._beacon()), world.now
    )
    world.run_for(SECOND)
    assert (world.client.home, world.client.leader) == (NodeId(1), NodeId(2))
    world.leader, world.log.ballot = 1, 1
    before = [each.role for each in world.client.servers]
    cut_off(world, 1)
    world.run_for(10 * MILLISECOND)
    assert [each.role for each in world.client.servers] == before
    world.cut.clear()
    world.leader, world.log.ballot = 2, 9
    began = world.now
    world.run_until(lambda: world.client.home == NodeId(2), world.now + SECOND)
    assert world.client.home == NodeId(2)
    assert world.now - began < 2 * world.timing.client_ping_us


def test_reads_of_what_one_server_has_go_on_while_all_else_is_refused() -> None:
    """They waited for the back-off of the linearizable ones."""
    world = World(3)
    world.answer(world.submit(b"0"))
    for server in world.servers[1:]:
        world.crash(server.node)
    cut_off(world, 1)
    world.leader = None
    strict = [world.query(b"strict", seconds=4) for _ in range(3)]
    for _ in range(20):
        world.run_for(190 * MILLISECOND)
        began = world.now
        (end,) = world.answer(world.query(b"local", linearizable=False))
        assert end.value == b"answer:local"
        assert world.now - began < 2 * MILLISECOND
    assert all(isinstance(end.error, NoLeader) for end in world.answer(*strict))


def test_a_window_full_of_strict_reads_holds_back_no_local_one() -> None:
    """The leader has lost its quorum, and does not know it yet."""
    world = World()
    world.answer(world.submit(b"0"))

    def confirms_nothing(server: FakeServer, peer: NodeId, message: Message) -> bool:
        return isinstance(message, Query) and message.linearizable

    world.servers[0].intercept = confirms_nothing
    for _ in range(world.limits.session_window + 10):
        world.query(b"strict", seconds=1)
    world.run_for(10 * MILLISECOND)
    began = world.now
    (end,) = world.answer(world.query(b"local", linearizable=False))
    assert end.value == b"answer:local"
    assert world.now - began < 2 * MILLISECOND


def test_since_when_a_server_is_alone_is_known_by_what_it_says() -> None:
    world = World(2)
    world.answer(world.submit(b"0"))
    home = world.servers[0]
    client = next(iter(home.clients))

    def alone_us() -> list[int | None]:
        return [
            None if each.alone_since is None else world.now - each.alone_since
            for each in world.client.servers
        ]

    assert alone_us() == [None, None]
    infos = tuple(
        ServerInfo(each.node, each.name, each.address, "follower", 0, True, 5, said)
        for each, said in ((home, None), (world.servers[1], 2 * SECOND))
    )
    home.send(client, Servers(1, Ballot(1, 1), infos))
    world.run_for(SECOND)
    assert [each.lag for each in world.client.servers] == [5, 5]
    (_, other) = alone_us()
    assert other is not None
    assert 3 * SECOND - MILLISECOND <= other <= 3 * SECOND
    home.send(client, Pong(0, 1, None, 7 * SECOND))
    world.run_for(MILLISECOND)
    (own, _) = alone_us()
    assert own is not None
    assert 7 * SECOND <= own <= 7 * SECOND + MILLISECOND
    home.send(client, Pong(0, 1, None))
    world.run_for(MILLISECOND)
    assert alone_us()[0] is None
