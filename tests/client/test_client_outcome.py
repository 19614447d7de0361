"""What a caller is told of a command without an answer: not taken, or nobody knows."""

from __future__ import annotations

from attrs import evolve
from client_script import ask_own, numbers, swallow
from client_world import VOID, FakeServer, World

from distinv.config import Limits
from distinv.entry import NodeId
from distinv.errors import OutcomeUnknown, Overloaded
from distinv.inventory.commands import session_key
from distinv.wire.messages import Message, Request

# --- not taken --------------------------------------------------------------------------------


def test_every_copy_not_taken_is_unavailable_and_the_number_is_voided() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def overloaded(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            server.refuse(peer, message.session, message.number, message.copy, "overloaded")
        return isinstance(message, Request)

    server = world.servers[0]
    server.intercept = overloaded
    call = world.submit(b"a", seconds=2)
    (end,) = world.answer(call)
    assert isinstance(end.error, Overloaded)
    tries = [copy for number, copy, command in numbers(server) if command == b"a"]
    assert tries == list(range(1, len(tries) + 1))
    assert len(tries) > world.limits.client_attempts, "not taken is no attempt"
    server.intercept = None
    (end,) = world.answer(world.submit(b"b"))
    assert world.log.effects == [b"0", b"b"]
    assert (2, b"") in [(number, command) for number, _, command in numbers(server)]
    assert (3, 1, b"b") in numbers(server)


def test_one_copy_without_an_answer_makes_the_outcome_unknown() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    seen: list[int] = []

    def lose_the_first(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request) and message.command == b"a":
            seen.append(message.copy)
            if message.copy > 1:
                server.refuse(peer, message.session, message.number, message.copy, "no_leader")
            return True
        return False

    world.servers[0].intercept = lose_the_first
    call = world.submit(b"a", seconds=4)
    (end,) = world.answer(call)
    assert isinstance(end.error, OutcomeUnknown)
    assert end.error.idempotency_key == session_key(world.client.session, 2)
    assert len(seen) > 2
    world.servers[0].intercept = None
    world.answer(world.submit(b"b"))
    assert world.log.effects == [b"0", b"b"]
    (outcome,) = world.answer(ask_own(world, 2))
    assert outcome.value == VOID


def test_an_unknown_outcome_names_the_callers_own_key() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    (end,) = world.answer(world.submit(b"a", seconds=1, key="order-7"))
    assert isinstance(end.error, OutcomeUnknown)
    assert end.error.idempotency_key == "order-7"


def test_the_copy_that_was_taken_for_lost_may_still_win() -> None:
    """The caller was told "unknown"; the log had the command after all, and the answer tells."""
    world = World()
    world.answer(world.submit(b"0"))
    kept: list[Request] = []

    def keep(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            kept.append(message)
        return isinstance(message, Request)

    world.servers[0].intercept = keep
    call = world.submit(b"a", seconds=1)
    (end,) = world.answer(call)
    assert isinstance(end.error, OutcomeUnknown)
    watched = ask_own(world, 2)
    world.log.apply(kept[0])
    world.servers[0].intercept = None
    (outcome,) = world.answer(watched)
    assert outcome.value == b"ok:a"
    assert world.log.effects == [b"0", b"a"]
    assert world.client.outcome_of(world.client.session, 1, world.now) is None


# --- silence ----------------------------------------------------------------------------------


def test_eight_silent_attempts_are_the_most() -> None:
    world = World(limits=evolve(Limits(), client_attempts=3))
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    (end,) = world.answer(world.submit(b"a", seconds=600), seconds=700)
    assert isinstance(end.error, OutcomeUnknown)
    with_command = [copy for _, copy, command in numbers(world.servers[0]) if command == b"a"]
    assert with_command == [1, 2, 3]


def test_the_attempts_outlast_the_default_deadline() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.servers[0].intercept = swallow
    began = world.now
    (end,) = world.answer(world.submit(b"a"))
    assert isinstance(end.error, OutcomeUnknown)
    assert world.now - began == world.timing.client_deadline_us
