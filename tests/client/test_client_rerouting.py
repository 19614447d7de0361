"""Servers that die, fall silent, or come back: when they are left, and what is sent again."""

from __future__ import annotations

from client_script import numbers, serving, swallow
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import NodeId
from distinv.wire.messages import Message, Request


def test_a_refused_port_reroutes_before_the_silence_is_over() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.crash(1)
    world.lead(2)
    began = world.now
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    assert world.now - began < world.timing.client_silence_us
    assert world.log.effects == [b"a", b"b"]


def test_a_silent_server_is_left_after_the_silence() -> None:
    world = World(3)
    world.refusing = False
    world.answer(world.submit(b"a"))
    world.crash(1)
    world.lead(2)
    began = world.now
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    silence_us = world.timing.client_silence_us
    assert silence_us <= world.now - began < silence_us + 150 * MILLISECOND


def test_all_unanswered_commands_go_to_the_new_leader_in_order() -> None:
    world = World(3)
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    calls = [world.submit(b"%d" % number) for number in range(1, 6)]
    world.run_for(20 * MILLISECOND)
    world.lead(2)
    began = world.now
    world.answer(*calls)
    assert world.now - began < world.timing.heartbeat_us
    assert [copy for _, copy, _ in numbers(world.servers[1])] == [2] * 5
    assert world.log.effects == [b"%d" % number for number in range(6)]


def test_what_an_old_leader_took_is_not_applied_again() -> None:
    """It was applied, the answer was lost with the leader: the retry gets the recorded one."""
    world = World(2)
    world.answer(world.submit(b"0"))

    def apply_and_die(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            world.log.apply(message)
            world.crash(1)
            world.lead(2)
        return isinstance(message, Request)

    world.servers[0].intercept = apply_and_die
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.log.effects == [b"0", b"a"]


def test_what_was_queued_for_a_lost_server_is_not_sent_beside_its_copies() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.cut.add(world.servers[0].address)
    call = world.submit(b"a")
    world.run_for(2 * SECOND)
    world.cut.clear()
    world.answer(call)
    world.run_for(2 * SECOND)
    assert numbers(world.servers[0]) == [(1, 1, b"0"), (2, 2, b"a")]


def test_after_a_long_rest_the_first_call_is_as_quick_as_ever() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.run_for(31 * SECOND)
    assert not world.client_endpoint.connected(NodeId(1)), "forgotten, as it was idle"
    began = world.now
    world.answer(world.submit(b"1"))
    assert world.now - began < 10 * MILLISECOND


def test_a_restarted_server_is_sent_everything_again() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    calls = [world.submit(b"1"), world.submit(b"2")]
    world.run_for(20 * MILLISECOND)
    world.servers[0].intercept = None
    world.crash(1)
    world.restart(1)
    world.answer(*calls)
    assert world.log.effects == [b"0", b"1", b"2"]


def test_a_client_that_stood_still_does_not_blame_the_server() -> None:
    world = World(2)
    world.answer(world.submit(b"0"))
    call = world.submit(b"1")
    world.client.flush(world.now)
    world.client.deadline()
    world.now += 5 * SECOND
    world.client.on_deadline(world.now)
    assert world.client.home == NodeId(1)
    (end,) = world.answer(call)
    assert end.value == b"ok:1"


def test_the_dead_get_no_copies() -> None:
    """All servers are gone for five seconds: one attempt is lost, not eight."""
    world = World(3)
    world.refusing = False
    world.answer(world.submit(b"0"))
    for number in (1, 2, 3):
        world.crash(number)
    call = world.submit(b"a")
    world.run_for(5 * SECOND)
    for number in (1, 2, 3):
        world.restart(number)
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert max(copy for number, copy, _ in numbers(world.servers[0]) if number == 2) <= 3


def test_a_server_that_lives_but_does_not_work_is_left_for_another() -> None:
    world = World(2)
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    call = world.submit(b"a")
    world.servers[1].intercept = serving(2)
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert world.client.home == NodeId(2)
