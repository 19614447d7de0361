"""Callers who leave: what becomes of calls that are cancelled, and of all at the end."""

from __future__ import annotations

from client_script import ask_own, numbers, swallow
from client_world import MILLISECOND, SECOND, VOID, World

from distinv.errors import NoQuorum, OutcomeUnknown
from distinv.wire.messages import Ping


def test_cancelled_before_it_was_sent_it_never_is() -> None:
    world = World()
    call = world.submit(b"a")
    world.client.detach(call)
    world.answer(world.submit(b"b"))
    assert world.log.effects == [b"b"]
    assert call not in world.completions
    assert numbers(world.servers[0]) == [(1, 1, b"b")]


def test_cancelled_after_it_was_sent_its_number_is_voided_on_the_next_copy() -> None:
    world = World(2)
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    call, after = world.submit(b"a"), world.submit(b"b")
    world.run_for(20 * MILLISECOND)
    world.client.detach(call)
    world.lead(2)
    world.answer(after)
    assert world.log.effects == [b"0", b"b"]
    assert numbers(world.servers[1]) == [(2, 2, b""), (3, 2, b"b")]
    assert call not in world.completions
    (outcome,) = world.answer(ask_own(world, 2))
    assert outcome.value == VOID


def test_cancelled_calls_are_answered_quietly() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    call = world.submit(b"a")
    world.run_for(50)
    world.client.detach(call)
    world.run_for(SECOND)
    assert world.log.effects == [b"0", b"a"]
    assert call not in world.completions
    (outcome,) = world.answer(ask_own(world, 2))
    assert outcome.value == b"ok:a"


def test_everything_can_be_detached() -> None:
    world = World()
    world.crash(1)
    deadline = world.now + SECOND
    for call in (
        world.submit(b"a"),
        world.query(b"a"),
        world.client.status(world.now, deadline),
        world.client.end_session(5, world.now, deadline),
    ):
        world.client.detach(call)
        world.client.detach(call)
    assert not world.client.wanted
    world.run_for(2 * SECOND)
    assert world.completions == {}


def test_stopping_ends_every_call_by_the_rule() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = lambda server, peer, message: not isinstance(message, Ping)
    sent, read = world.submit(b"a"), world.query(b"q")
    world.run_for(10 * MILLISECOND)
    unsent = world.submit(b"b")
    world.client.end_all(world.now)
    ends = world.answer(sent, unsent, read)
    assert isinstance(ends[0].error, OutcomeUnknown)
    assert isinstance(ends[1].error, NoQuorum)
    assert isinstance(ends[2].error, NoQuorum)
