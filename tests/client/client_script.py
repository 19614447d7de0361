"""What scripted servers do instead of working, and what they have heard until then."""

from __future__ import annotations

from client_world import SECOND, FakeServer, Intercept, World

from distinv.entry import NodeId
from distinv.wire.messages import Message, Ping, Query, Request


def requests(server: FakeServer) -> list[Request]:
    return [message for message in server.heard if isinstance(message, Request)]


def numbers(server: FakeServer) -> list[tuple[int, int, bytes]]:
    """Number, copy and command of every request it heard."""
    return [(each.number, each.copy, each.command) for each in requests(server)]


def swallow(server: FakeServer, peer: NodeId, message: Message) -> bool:
    """Takes every command and never answers."""
    return isinstance(message, Request)


def swallow_reads(server: FakeServer, peer: NodeId, message: Message) -> bool:
    """Takes every read and never answers."""
    return isinstance(message, Query)


def serving(number: int) -> Intercept:
    """The server works as if it led, whoever is named."""

    def serve(server: FakeServer, peer: NodeId, message: Message) -> bool:
        world = server.world
        if isinstance(message, Ping):
            return False
        named, world.leader = world.leader, number
        server.handle(peer, message)
        world.leader = named
        return True

    return serve


def leaderless(server: FakeServer, peer: NodeId, message: Message) -> bool:
    """The server lives, but in a minority: it knows no leader."""
    world = server.world
    named, world.leader = world.leader, None
    server.handle(peer, message)
    world.leader = named
    return True


def ask_own(world: World, number: int) -> int:
    """Asks what became of a number of the client's own session; the call it is answered as."""
    call = world.client.outcome_of(world.client.session, number, world.now + SECOND)
    assert call is not None
    return call
