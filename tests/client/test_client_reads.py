"""Reads: whom they are asked of, and how long before they are asked again."""

from __future__ import annotations

from itertools import pairwise

from client_script import serving, swallow_reads
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import NodeId
from distinv.errors import InvalidRequest, NoLeader
from distinv.wire.messages import Message, Query, QueryFailed


def test_a_read_is_asked_again_of_another_server() -> None:
    world = World(2)
    world.answer(world.query(b"0"))
    world.servers[0].intercept = lambda server, peer, message: isinstance(message, Query)
    call = world.query(b"q")
    world.run_for(20 * MILLISECOND)
    world.lead(2)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"answer:q"
    assert world.now - began < world.timing.heartbeat_us


def test_a_read_that_a_living_server_forgot_is_asked_again() -> None:
    world = World()
    world.answer(world.query(b"0"))

    def forget_the_first(server: FakeServer, peer: NodeId, message: Message) -> bool:
        return isinstance(message, Query) and len(server.said(Query)) == 2

    world.servers[0].intercept = forget_the_first
    began = world.now
    (end,) = world.answer(world.query(b"q"))
    assert end.value == b"answer:q"
    assert world.now - began < world.timing.client_read_us + 10 * MILLISECOND


def test_a_read_that_a_living_server_never_answers_is_asked_elsewhere() -> None:
    """A follower whose disk is dead has the leader's index, and never what it is the index of."""
    world = World(2)
    world.answer(world.query(b"0"))
    world.servers[0].intercept = lambda server, peer, message: isinstance(message, Query)
    began = world.now
    (end,) = world.answer(world.query(b"q", linearizable=False))
    assert end.value == b"answer:q"
    assert world.client.home == NodeId(2)
    assert world.now - began < world.timing.client_read_us + 100 * MILLISECOND


def test_a_read_that_was_refused_is_as_impatient_as_a_new_one() -> None:
    """It was answered, again and again, while the servers elected."""
    world = World(2)
    world.answer(world.query(b"0"))
    world.lead(None)
    call = world.query(b"q", seconds=60)
    world.run_for(4 * SECOND)
    world.servers[0].intercept = swallow_reads
    world.servers[1].intercept = serving(2)
    world.lead(1)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"answer:q"
    assert world.now - began < world.timing.client_read_us + 200 * MILLISECOND


def test_a_read_that_was_silently_dropped_and_then_refused_is_as_impatient_as_a_new_one() -> None:
    world = World(2)
    world.answer(world.query(b"0"))
    world.servers[0].intercept = swallow_reads
    call = world.query(b"q", seconds=60)
    world.run_for(world.timing.client_read_us - 100 * MILLISECOND)
    world.lead(None, push=False)
    world.run_for(SECOND)
    assert world.client.home == NodeId(2), "which refuses"
    world.lead(1)
    world.run_for(100 * MILLISECOND)
    assert world.client.home == NodeId(1)
    world.servers[1].intercept = serving(2)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"answer:q"
    assert world.now - began < world.timing.client_read_us + 200 * MILLISECOND


def test_a_read_that_takes_long_does_not_hold_back_the_others() -> None:
    """It is given twice the time by the second server, and the next read is not."""
    world = World(2)
    world.answer(world.query(b"0"))
    for server in world.servers:
        server.intercept = swallow_reads
    world.query(b"long", seconds=60, linearizable=False)
    world.run_for(world.timing.client_read_us + 200 * MILLISECOND)
    assert world.client.home == NodeId(2)
    world.servers[0].intercept = serving(1)
    began = world.now
    (end,) = world.answer(world.query(b"q", linearizable=False))
    assert end.value == b"answer:q"
    assert world.now - began < world.timing.client_read_us + 200 * MILLISECOND


def test_a_read_that_takes_long_is_given_twice_the_time_each_time() -> None:
    world = World()
    world.answer(world.query(b"0"))
    asked_at: list[int] = []

    def watch(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Query) and message.query == b"long":
            asked_at.append(world.now)
        return isinstance(message, Query) and message.query == b"long"

    world.servers[0].intercept = watch
    world.query(b"long", seconds=40)
    for _ in range(40):
        world.answer(world.query(b"short"))
        world.run_for(SECOND)
    patience_us = [later - earlier for earlier, later in pairwise(asked_at)]
    assert [round(span / world.timing.client_read_us) for span in patience_us] == [1, 2, 4]


def test_a_read_is_forgiven_the_time_in_which_the_client_stood_still() -> None:
    """The answer waits in the socket."""
    world = World(2)
    world.answer(world.query(b"0"))
    world.query(b"q")
    world.client.flush(world.now)
    world.client.deadline()
    world.now += world.timing.client_read_us + SECOND
    world.client.on_deadline(world.now)
    assert world.client.home == NodeId(1)
    assert world.client.deadline() < world.now + world.timing.client_read_us


def test_a_local_read_is_served_without_a_leader() -> None:
    world = World(2)
    world.leader = None
    (end,) = world.answer(world.query(b"q", linearizable=False))
    assert end.value == b"answer:q"
    (end,) = world.answer(world.query(b"q", seconds=1))
    assert isinstance(end.error, NoLeader)


def test_a_read_that_cannot_be_is_invalid() -> None:
    world = World()

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Query):
            server.send(peer, QueryFailed(message.number, "invalid_request", "why", 0, None))
        return isinstance(message, Query)

    world.servers[0].intercept = refuse
    (end,) = world.answer(world.query(b"q"))
    assert isinstance(end.error, InvalidRequest)
    assert str(end.error) == "why"
