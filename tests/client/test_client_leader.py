"""Following the leader: waiting until there is one, and a home that follows or loses it."""

from __future__ import annotations

from client_script import leaderless, requests, serving, swallow
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import NodeId
from distinv.errors import NoLeader, NoQuorum
from distinv.wire.messages import Message, OpenSession, Ping, Request

# --- waiting for one --------------------------------------------------------------------------


def test_the_leader_is_chosen() -> None:
    world = World(3)
    world.lead(2)
    world.answer(world.submit(b"a"))
    assert world.client.home == NodeId(2)
    assert [len(requests(server)) for server in world.servers] == [0, 1, 0]


def test_no_leader_is_said_at_the_deadline() -> None:
    world = World(3)
    world.leader = None
    call = world.submit(b"a", seconds=2)
    (end,) = world.answer(call)
    assert isinstance(end.error, NoLeader)
    assert world.log.effects == []


def test_a_new_leader_ends_the_waiting_at_once() -> None:
    world = World(3)
    world.leader = None
    call = world.submit(b"a")
    world.run_for(3 * SECOND)
    world.lead(3)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert world.now - began < world.timing.heartbeat_us


def test_a_leader_behind_a_lossy_line_is_asked_until_it_answers() -> None:
    """The home follows, and each question to the leader was put off longer than the one before
    (seed 88669): a client on a bad line ran out of time beside a leader that serves."""
    world = World(3)
    world.lead(2)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    pings: list[Message] = []

    def loses_most(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Ping):
            pings.append(message)
        return not isinstance(message, Ping) or len(pings) % 12 != 0

    world.lead(3, push=False)
    world.servers[2].intercept = loses_most
    call = world.submit(b"a")
    began = world.now
    world.run_until(lambda: world.client.home == NodeId(3), began + 20 * SECOND)
    assert world.now - began < SECOND
    world.servers[2].intercept = None
    (end,) = world.answer(call)
    assert end.value == b"ok:a"


def test_a_home_that_becomes_the_leader_ends_the_waiting_at_once() -> None:
    world = World()
    world.leader = None
    call = world.submit(b"a")
    world.run_for(3 * SECOND)
    world.lead(1)
    began = world.now
    world.answer(call)
    assert world.now - began < world.timing.heartbeat_us


def test_a_leader_of_a_new_ballot_is_sent_everything_again() -> None:
    """It may have forgotten what it took before."""
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    call = world.submit(b"a")
    world.run_for(20 * MILLISECOND)
    world.servers[0].intercept = None
    world.lead(1)
    began = world.now
    world.answer(call)
    assert world.now - began < world.timing.heartbeat_us


def test_a_leader_out_of_quorum_is_no_quorum() -> None:
    world = World()

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, OpenSession):
            server.refuse(peer, 0, message.nonce, message.copy, "no_quorum")
        return isinstance(message, OpenSession)

    world.servers[0].intercept = refuse
    (end,) = world.answer(world.submit(b"a", seconds=1))
    assert isinstance(end.error, NoQuorum)


# --- a home that does not lead ----------------------------------------------------------------


def test_the_home_that_lost_its_leader_is_left_for_one_that_has_one() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.servers[0].intercept = leaderless
    world.lead(2, push=False)
    began = world.now
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    assert world.client.home == NodeId(2)
    assert world.now - began < world.timing.heartbeat_us


def test_a_leader_that_only_its_followers_reach_is_named_but_not_waited_for() -> None:
    """The client stays with a server that answers."""
    world = World(2)
    world.cut.add(world.servers[0].address)
    world.servers[1].intercept = serving(2)
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(2)


def test_what_a_new_leader_out_of_reach_may_have_missed_is_sent_again() -> None:
    """The home stays the home, but what it passed on to the old leader is lost."""
    world = World(2)
    world.answer(world.submit(b"0"))
    world.cut.add(world.servers[0].address)
    world.servers[1].intercept = serving(2)
    world.answer(world.submit(b"1"))
    world.servers[1].intercept = swallow
    call = world.submit(b"2")
    world.run_for(20 * MILLISECOND)
    world.servers[1].intercept = serving(2)
    world.log.ballot += 1
    world.servers[1].push_servers(world.log.ballot)
    began = world.now
    world.answer(call)
    assert world.now - began < world.timing.client_ping_us + 10 * MILLISECOND


def test_a_home_without_a_leader_is_left_before_it_is_silent() -> None:
    """It took the command, lost its leader, and says so when it is asked whether it lives."""
    world = World(2)
    world.answer(world.submit(b"0"))

    def lost(server: FakeServer, peer: NodeId, message: Message) -> bool:
        return isinstance(message, Request) or leaderless(server, peer, message)

    world.servers[0].intercept = lost
    world.lead(2, push=False)
    began = world.now
    world.answer(world.submit(b"1"))
    assert world.now - began < 2 * world.timing.client_ping_us


def test_a_leader_within_reach_again_is_gone_back_to() -> None:
    world = World(2)
    world.cut.add(world.servers[0].address)
    world.servers[1].intercept = serving(2)
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.cut.clear()
    world.servers[1].intercept = leaderless
    began = world.now
    world.answer(world.submit(b"1"))
    assert world.client.home == NodeId(1)
    assert world.now - began < world.timing.heartbeat_us
