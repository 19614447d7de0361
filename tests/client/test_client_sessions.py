"""The life of a session: it is opened once, may expire, and is ended through the log."""

from __future__ import annotations

from client_script import ask_own, requests, swallow, swallow_reads
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.config import Limits
from distinv.entry import NodeId
from distinv.errors import OutcomeUnknown
from distinv.inventory.commands import session_key
from distinv.wire.messages import EndSession, Message, OpenSession, Query, Request

# --- opening ----------------------------------------------------------------------------------


def test_reads_open_no_session() -> None:
    world = World()
    (end,) = world.answer(world.query(b"q"))
    assert end.value == b"answer:q"
    assert world.client.session == 0
    assert world.log.opened == 0


def test_a_lost_opening_is_repeated_with_the_same_nonce() -> None:
    world = World(2)

    def open_and_die(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, OpenSession):
            world.log.open(message.nonce)
            world.crash(1)
            world.lead(2)
        return isinstance(message, OpenSession)

    world.servers[0].intercept = open_and_die
    world.answer(world.submit(b"a"))
    assert world.log.opened == 1
    nonces = {
        message.nonce
        for server in world.servers
        for message in server.heard
        if isinstance(message, OpenSession)
    }
    assert len(nonces) == 1


# --- expiring ---------------------------------------------------------------------------------


def test_an_expired_session_is_reopened_silently() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    first = world.client.session
    world.log.expire_all()
    calls = [world.submit(b"%d" % number) for number in range(1, 5)]
    ends = world.answer(*calls)
    assert [end.value for end in ends] == [b"ok:1", b"ok:2", b"ok:3", b"ok:4"]
    assert [end.number for end in ends] == [1, 2, 3, 4]
    assert world.client.session not in (0, first)
    assert world.log.effects == [b"%d" % number for number in range(5)]


def test_what_an_expired_session_leaves_open_is_unknown_and_the_rest_goes_on() -> None:
    world = World(limits=Limits(session_window=3))
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    calls = [world.submit(b"%d" % number) for number in range(1, 6)]
    world.run_for(20 * MILLISECOND)
    old = world.client.session
    world.log.expire_all()
    world.servers[0].intercept = None
    world.crash(1)
    world.restart(1)
    ends = world.answer(*calls)
    unknown = [end.error for end in ends[:3]]
    assert all(isinstance(error, OutcomeUnknown) for error in unknown)
    keys = [error.idempotency_key for error in unknown if isinstance(error, OutcomeUnknown)]
    assert keys == [session_key(old, number) for number in (2, 3, 4)]
    assert [end.value for end in ends[3:]] == [b"ok:4", b"ok:5"]
    assert world.log.effects == [b"0", b"4", b"5"]


def test_an_expired_session_is_drained_when_its_answers_are_lost() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.log.expire_all()

    def answer_the_first_only(server: FakeServer, peer: NodeId, message: Message) -> bool:
        return isinstance(message, Request) and message.number > 2 and message.session == 4096

    world.servers[0].intercept = answer_the_first_only
    calls = [world.submit(b"a"), world.submit(b"b")]
    world.run_for(20 * MILLISECOND)
    later = world.submit(b"c")
    ends = world.answer(*calls)
    world.answer(later)
    sent = [(each.number, each.command) for each in requests(world.servers[0])]
    assert sent == [(1, b"0"), (2, b"a"), (3, b"b"), (1, b"a"), (2, b"c")]
    assert ends[0].value == b"ok:a"
    assert isinstance(ends[1].error, OutcomeUnknown)


def test_a_void_dies_with_its_session() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    call = world.submit(b"a")
    world.run_for(20 * MILLISECOND)
    watched = ask_own(world, 2)
    world.client.detach(call)
    world.log.expire_all()
    world.servers[0].intercept = None
    world.crash(1)
    world.restart(1)
    (outcome,) = world.answer(watched)
    assert isinstance(outcome.error, OutcomeUnknown)
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    assert world.log.effects == [b"0", b"b"]


# --- ending one -------------------------------------------------------------------------------


def test_another_clients_session_is_ended_through_the_log() -> None:
    world = World(2)
    world.servers[0].intercept = lambda server, peer, message: isinstance(message, EndSession)
    call = world.client.end_session(12_345, world.now, world.now + 10 * SECOND)
    world.run_for(SECOND)
    assert call not in world.completions
    assert len(world.servers[0].said(EndSession)) > 1, "it is asked until it is confirmed"
    world.lead(2)
    (end,) = world.answer(call)
    assert end.error is None
    assert world.log.ended == [12_345]


def test_a_session_is_ended_by_the_leader_when_the_home_follows() -> None:
    """A follower drops the wish without a word."""
    world = World(2)
    world.cut.add(world.servers[0].address)
    world.answer(world.query(b"q", linearizable=False))
    world.cut.clear()
    world.run_for(SECOND)
    assert (world.client.home, world.client.leader) == (2, 1)
    call = world.client.end_session(12_345, world.now, world.now + 10 * SECOND)
    began = world.now
    (end,) = world.answer(call)
    assert end.error is None
    assert world.now - began < world.timing.heartbeat_us


def test_a_session_that_no_leader_in_reach_can_end_holds_up_nothing() -> None:
    world = World(2)
    world.cut.add(world.servers[0].address)
    world.answer(world.query(b"0", linearizable=False))
    world.client.end_session(12_345, world.now, world.now + 10 * SECOND)
    for _ in range(20):
        began = world.now
        world.answer(world.query(b"q", linearizable=False))
        assert world.now - began <= world.timing.client_ping_us + 10 * MILLISECOND
        world.run_for(50 * MILLISECOND)
    assert len(world.servers[1].said(Query)) == 21, "none was asked twice"


def test_a_session_that_no_leader_in_reach_can_end_has_nothing_sent_twice() -> None:
    """Also not because an earlier move to a leader out of reach had that effect."""
    world = World(2)
    world.answer(world.query(b"0", linearizable=False))
    world.cut.add(world.servers[0].address)
    world.answer(world.query(b"1", linearizable=False))
    world.lead(1)
    world.run_for(SECOND)
    assert world.client.home == NodeId(2)
    world.servers[1].intercept = swallow_reads
    asked = len(world.servers[1].said(Query))
    world.query(b"slow", linearizable=False)
    world.client.end_session(12_345, world.now, world.now + 10 * SECOND)
    world.run_for(2 * SECOND)
    assert len(world.servers[1].said(Query)) == asked + 1
