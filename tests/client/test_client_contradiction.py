"""Servers that contradict each other about who leads: back-off, and none for a new leader."""

from __future__ import annotations

import pytest
from client_script import leaderless, requests
from client_world import MILLISECOND, SECOND, FakeServer, World

from distinv.entry import NodeId
from distinv.wire.messages import Message, Ping, Query, QueryFailed, Request

Naming = dict[int, int]
"""Whom each server names as the leader, 0 for nobody."""


def contradict(world: World, naming: Naming) -> list[Message]:
    """Every server refuses everything and names that leader. The result fills with the refused."""
    refused: list[Message] = []

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        named, world.leader = world.leader, naming[server.node] or None
        reason = "not_leader" if world.leader else "no_leader"
        match message:
            case Request():
                refused.append(message)
                server.refuse(peer, message.session, message.number, message.copy, reason)
            case Query():
                refused.append(message)
                leader = naming[server.node]
                address = world.by_node[leader].address if leader else None
                server.send(peer, QueryFailed(message.number, reason, "", leader, address))
            case _:
                server.handle(peer, message)
        world.leader = named
        return True

    for server in world.servers:
        server.intercept = refuse
    return refused


@pytest.mark.parametrize("naming", [{1: 0, 2: 0}, {1: 0, 2: 1}, {1: 2, 2: 1}])
@pytest.mark.parametrize("kind", ["commands", "reads"])
def test_servers_that_contradict_each_other_do_not_raise_a_storm(kind: str, naming: Naming) -> None:
    """A follower names the one that has stepped down, or two name each other."""
    world = World(2)
    world.answer(world.submit(b"0"))
    refused = contradict(world, naming)
    asked = [world.submit(b"a") if kind == "commands" else world.query(b"a") for _ in range(50)]
    world.run_for(SECOND)
    rounds = SECOND // world.timing.client_ping_us + 2
    assert len(refused) <= rounds * len(asked), "as if each had backed off"
    for server in world.servers:
        server.intercept = None
    world.lead(2)
    began = world.now
    world.answer(*asked)
    assert world.now - began < world.timing.heartbeat_us, "a new leader is used at once"


def test_a_follower_of_the_home_is_no_way_around_it() -> None:
    """The home leads and has lost its quorum; its follower can only point back to it."""
    world = World(2)
    world.answer(world.submit(b"0"))

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            server.refuse(peer, message.session, message.number, message.copy, "no_quorum")
        return isinstance(message, Request)

    world.servers[0].intercept = refuse
    world.submit(b"a")
    world.run_for(2 * SECOND)
    assert world.client.home == NodeId(1)
    assert requests(world.servers[1]) == []


def test_a_new_leader_is_sent_at_once_what_was_refused_after_it_was_named() -> None:
    """The first refusal names it, those behind it in the same datagram ask for another pause."""
    world = World(2)
    world.answer(world.submit(b"0"))
    world.lead(None)
    named_at: list[int] = []

    def name_it_in_refusals(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Query) and world.leader and server.node != world.leader:
            named_at.append(world.now)
        hidden = isinstance(message, Ping) and not named_at
        return hidden and leaderless(server, peer, message)

    for server in world.servers:
        server.intercept = name_it_in_refusals
    calls = [world.query(b"q", seconds=60) for _ in range(20)]
    world.run_for(5 * SECOND)
    world.lead(2, push=False)
    world.answer(*calls)
    assert len(named_at) == len(calls)
    assert world.now - named_at[0] < 10 * MILLISECOND


def test_a_new_leader_that_is_hard_to_reach_is_used_as_soon_as_it_is_reached() -> None:
    """Until then the home has refused everything several times; the leader has refused nothing."""
    world = World(2)
    world.answer(world.submit(b"0"))
    world.cut.add(world.servers[1].address)
    world.lead(2)
    refused_at: list[int] = []

    def watch(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            refused_at.append(world.now)
            if len(refused_at) == 6:
                world.cut.clear()
        return False

    world.servers[0].intercept = watch
    world.answer(world.submit(b"a"))
    assert len(refused_at) == 6
    assert world.now - refused_at[-1] < 10 * MILLISECOND


def test_a_new_leader_is_used_at_once_though_the_first_hint_was_out_of_date() -> None:
    """It takes over while the one that was named before is asked for a sign of life."""
    world = World(3)
    world.answer(world.submit(b"0"))
    world.cut.add(world.servers[1].address)
    world.lead(2, push=False)
    call = world.submit(b"a")
    world.run_for(20 * MILLISECOND)
    world.lead(3)
    began = world.now
    world.answer(call)
    assert world.now - began < 10 * MILLISECOND
