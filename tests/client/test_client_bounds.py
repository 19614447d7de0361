"""What callers and servers cannot do to a client: fill it up, or make it believe anything."""

from __future__ import annotations

import pytest
from client_script import swallow
from client_world import CLIENT_ADDRESS, MILLISECOND, SECOND, FakeServer, World

from distinv.config import Limits
from distinv.entry import NodeId
from distinv.errors import OutcomeUnknown, Overloaded
from distinv.wire.codec import encode
from distinv.wire.messages import Message, Reply, Request, Seek, SessionOpened

# --- bounds -----------------------------------------------------------------------------------


def test_too_many_calls_are_overload() -> None:
    world = World(limits=Limits(pending_commands=3, pending_reads=2, client_queue_bytes=100))
    world.submit(b"a")
    with pytest.raises(Overloaded):
        world.submit(bytes(100))
    world.submit(b"b")
    world.submit(b"c")
    with pytest.raises(Overloaded):
        world.submit(b"d")
    world.query(b"a")
    world.query(b"b")
    with pytest.raises(Overloaded):
        world.query(b"c")
    world.run_for(SECOND)
    assert len(world.completions) == 5
    world.answer(world.submit(b"e"), world.query(b"f"))
    for _ in range(5):
        world.client.status(world.now, world.now + SECOND)
    with pytest.raises(Overloaded):
        world.client.status(world.now, world.now + SECOND)
    with pytest.raises(Overloaded):
        world.client.end_session(1, world.now, world.now + SECOND)
    with pytest.raises(Overloaded):
        world.client.outcome_of(1, 1, world.now + SECOND)


def test_deadlines_of_finished_calls_do_not_pile_up() -> None:
    world = World()
    world.servers[0].intercept = swallow
    world.submit(b"open", seconds=1_800)
    for _ in range(30):
        world.answer(*[world.query(b"q", seconds=3_600) for _ in range(100)])
    assert len(world.client._book._deadlines) < 1_300


# --- garbage ----------------------------------------------------------------------------------


def test_garbage_is_dropped() -> None:
    world = World()
    world.answer(world.submit(b"a"))
    for data in (b"", b"\0" * 10, b"dI" + bytes(200), bytes(range(256))):
        world.client.receive(data, ("10.0.0.1", 4747), world.now)
    server = world.servers[0]
    client = next(iter(server.clients))
    for body in (b"", b"\xff", b"\x91\xcc\xfe"):
        server.endpoint.send(client, body, world.now)
    server.send(client, Seek("shop"))
    world.answer(world.submit(b"b"))


def test_only_what_is_fresh_counts() -> None:
    """What is not addressed to this very process may be recorded, from long ago."""
    world = World()
    world.answer(world.submit(b"a"))
    server = world.servers[0]
    server.intercept = swallow
    call = world.submit(b"b", seconds=0.2)
    world.run_for(20 * MILLISECOND)
    reply = Reply(world.client.session, 2, b"forged")
    server.endpoint.send_to(CLIENT_ADDRESS, encode(reply), world.now)
    (end,) = world.answer(call)
    assert isinstance(end.error, OutcomeUnknown)


def test_an_answer_to_a_copy_that_was_never_sent_is_ignored() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def lie(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request) and message.copy == 1:
            for copy in (0, -5, 2, 2**62):
                server.refuse(peer, message.session, message.number, copy, "overloaded")
            server.send(peer, Reply(message.session, 99, b"?"))
            server.send(peer, Reply(message.session + 1, message.number, b"?"))
            server.send(peer, SessionOpened(5, 5))
            return True
        return False

    world.servers[0].intercept = lie
    (end,) = world.answer(world.submit(b"a", seconds=1))
    assert isinstance(end.error, OutcomeUnknown)
