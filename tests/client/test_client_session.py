"""The client's machine against scripted servers: one scene per rule."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import evolve
from client_world import CLIENT_ADDRESS, MILLISECOND, SECOND, VOID, FakeServer, Intercept, World

from distinv.config import Limits
from distinv.entry import Ballot, NodeId
from distinv.errors import (
    InvalidRequest,
    NoLeader,
    NoQuorum,
    NoServer,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
)
from distinv.inventory.commands import session_key
from distinv.wire.codec import encode
from distinv.wire.messages import (
    Beacon,
    EndSession,
    Message,
    NotTaken,
    OpenSession,
    Ping,
    Query,
    QueryFailed,
    Reply,
    Request,
    Seek,
    SessionOpened,
)


def requests(server: FakeServer) -> list[Request]:
    return [message for message in server.heard if isinstance(message, Request)]


def numbers(server: FakeServer) -> list[tuple[int, int, bytes]]:
    return [(each.number, each.copy, each.command) for each in requests(server)]


def swallow(server: FakeServer, peer: NodeId, message: Message) -> bool:
    """Takes every command and never answers."""
    return isinstance(message, Request)


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


# --- the normal case --------------------------------------------------------------------------


def test_a_command_is_answered() -> None:
    world = World()
    call = world.submit(b"a")
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert end.error is None
    assert (end.session, end.number) == (world.client.session, 1)
    assert world.log.effects == [b"a"]
    assert world.client.home == world.client.leader == NodeId(1)


def test_the_first_command_takes_four_round_trips() -> None:
    world = World(3)
    began = world.now
    world.answer(world.submit(b"a"))
    assert world.now - began < 4 * 800
    world.answer(world.submit(b"b"))
    assert world.now - began < 5 * 800


def test_the_leader_is_chosen() -> None:
    world = World(3)
    world.lead(2)
    world.answer(world.submit(b"a"))
    assert world.client.home == NodeId(2)
    assert [len(requests(server)) for server in world.servers] == [0, 1, 0]


def test_commands_are_a_stream_within_the_window() -> None:
    world = World(limits=Limits(session_window=8))
    calls = [world.submit(b"%d" % number) for number in range(50)]
    world.answer(*calls)
    assert world.log.effects == [b"%d" % number for number in range(50)]
    heard = requests(world.servers[0])
    assert [each.number for each in heard] == list(range(1, 51))
    assert max(each.number - each.lowest for each in heard) == 7
    assert heard[7].lowest == 1, "the window is filled without waiting for answers"


def test_bytes_under_way_are_bounded() -> None:
    world = World(limits=Limits(client_window_bytes=10_000))
    server = world.servers[0]
    server.intercept = swallow
    for _ in range(9):
        world.submit(bytes(4_000))
    world.run_for(100 * MILLISECOND)
    assert len(requests(server)) == 2


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


@pytest.mark.parametrize("command", [b"", bytes(Limits().client_window_bytes + 1)])
def test_a_command_of_impossible_size_is_invalid(command: bytes) -> None:
    with pytest.raises(InvalidRequest):
        World().submit(command)


# --- no server, no leader ---------------------------------------------------------------------


def test_without_a_server_a_call_waits_for_its_deadline() -> None:
    world = World()
    world.crash(1)
    call = world.submit(b"a", seconds=2)
    world.run_for(1_900 * MILLISECOND)
    assert call not in world.completions
    (end,) = world.answer(call)
    assert isinstance(end.error, NoServer)
    assert "shop" in str(end.error)


def test_a_server_that_comes_late_is_found() -> None:
    world = World()
    world.crash(1)
    call = world.submit(b"a")
    world.run_for(3 * SECOND)
    world.restart(1)
    began = world.now
    (end,) = world.answer(call)
    assert end.value == b"ok:a"
    assert world.now - began < 1_100 * MILLISECOND


def test_looking_for_servers_becomes_rare_and_a_call_wakes_it() -> None:
    world = World()
    world.crash(1)
    world.run_for(60 * SECOND)
    before = world.sent
    world.run_for(60 * SECOND)
    assert world.sent - before <= 25
    before = world.sent
    world.run_until(lambda: world.sent > before, world.now + 10 * SECOND)
    world.run_for(150 * MILLISECOND)
    world.restart(1)
    began = world.now
    world.answer(world.submit(b"a"))
    assert world.now - began < 200 * MILLISECOND


def test_a_settled_client_is_quiet() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.run_for(SECOND)
    before = world.sent
    world.run_for(20 * SECOND)
    assert world.sent == before


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


# --- rerouting --------------------------------------------------------------------------------


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


# --- servers that contradict each other -------------------------------------------------------

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


def ask_own(world: World, number: int) -> int:
    call = world.client.outcome_of(world.client.session, number, world.now + SECOND)
    assert call is not None
    return call


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


def test_not_taken_goes_back_to_that_number_and_on_in_order() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def refuse_third(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request) and message.number == 4 and message.copy == 1:
            server.refuse(peer, message.session, message.number, message.copy, "overloaded")
            return True
        return False

    world.servers[0].intercept = refuse_third
    calls = [world.submit(b"%d" % number) for number in range(1, 7)]
    world.answer(*calls)
    assert world.log.effects == [b"%d" % number for number in range(7)]
    copies = {number: copy for number, copy, _ in numbers(world.servers[0])}
    assert copies == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 2}


def test_a_late_answer_to_an_old_copy_does_not_go_back_again() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def refuse_first_copy(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request):
            server.refuse(peer, message.session, message.number, 1, "overloaded")
        return isinstance(message, Request)

    world.servers[0].intercept = refuse_first_copy
    world.submit(b"a")
    world.run_for(200 * MILLISECOND)
    assert numbers(world.servers[0])[1:] == [(2, 1, b"a"), (2, 2, b"a")]


def test_a_gap_goes_back_to_the_lowest_unanswered_number() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def lose_second(server: FakeServer, peer: NodeId, message: Message) -> bool:
        return isinstance(message, Request) and message.number == 3 and message.copy == 1

    world.servers[0].intercept = lose_second
    began = world.now
    world.answer(*[world.submit(b"%d" % number) for number in range(1, 5)])
    assert world.log.effects == [b"%d" % number for number in range(5)]
    assert world.now - began < 100 * MILLISECOND


def test_a_command_that_no_server_can_read_is_invalid_and_does_not_stop_the_rest() -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request) and message.command == b"bad":
            server.send(
                peer,
                NotTaken(message.session, message.number, 1, "invalid_request", "no", 0, None),
            )
            return True
        return False

    world.servers[0].intercept = refuse
    bad, good = world.submit(b"bad"), world.submit(b"good")
    (end, after) = world.answer(bad, good)
    assert isinstance(end.error, InvalidRequest)
    assert str(end.error) == "no"
    assert after.value == b"ok:good"
    assert world.log.effects == [b"0", b"good"]


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


# --- callers who leave ------------------------------------------------------------------------


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


# --- sessions ---------------------------------------------------------------------------------


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


# --- reads ------------------------------------------------------------------------------------


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


def swallow_reads(server: FakeServer, peer: NodeId, message: Message) -> bool:
    return isinstance(message, Query)


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


# --- status -----------------------------------------------------------------------------------


def test_every_server_is_asked_what_it_is() -> None:
    world = World(3)
    world.lead(2)
    (end,) = world.answer(world.client.status(world.now, world.now + SECOND))
    assert isinstance(end.value, tuple)
    assert sorted(reply.node for reply in end.value) == [1, 2, 3]


def test_a_dead_server_is_left_out_of_the_status() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    world.crash(3)
    (end,) = world.answer(world.client.status(world.now, world.now + 10 * SECOND))
    assert isinstance(end.value, tuple)
    assert sorted(reply.node for reply in end.value) == [1, 2]
    world.crash(1)
    world.crash(2)
    (end,) = world.answer(world.client.status(world.now, world.now + SECOND))
    assert isinstance(end.error, NoServer)


# --- refusals of the key ----------------------------------------------------------------------


@pytest.mark.parametrize("client_key", [None, bytes(32)])
def test_a_wrong_key_is_named_long_before_the_deadline(client_key: bytes | None) -> None:
    world = World(key=bytes(31) + b"k", client_key=client_key)
    began = world.now
    ends = world.answer(world.submit(b"a"), world.query(b"q"))
    assert all(isinstance(end.error, PermissionDenied) for end in ends)
    assert "10.0.0.1:4747" in str(ends[0].error)
    assert world.now - began < 2 * SECOND
    (end,) = world.answer(world.submit(b"b"))
    assert isinstance(end.error, PermissionDenied)


def test_a_stranger_with_another_key_does_not_hide_the_own_cluster() -> None:
    world = World(2, key=bytes(32), client_key=bytes(32))
    world.servers[0]._key = bytes(31) + b"k"
    world.servers[0].start()
    world.leader = 2
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"


def test_the_right_key_is_found_out_when_the_server_gets_it() -> None:
    world = World(key=bytes(31) + b"k", client_key=bytes(32))
    world.answer(world.submit(b"a"))
    world.servers[0]._key = bytes(32)
    world.servers[0].start()
    world.run_for(6 * SECOND)
    (end,) = world.answer(world.submit(b"b"))
    assert end.value == b"ok:b"
    world.crash(1)
    (end,) = world.answer(world.query(b"q", seconds=3))
    assert isinstance(end.error, NoServer)


# --- other clusters of the name ---------------------------------------------------------------


def test_a_client_holds_to_the_cluster_it_has_a_session_in() -> None:
    world = World(2)
    world.answer(world.submit(b"0"))
    world.crash(1)
    world.move_to_cluster(2, 88)
    world.leader = 2
    (end,) = world.answer(world.submit(b"a", seconds=5))
    assert isinstance(end.error, OutcomeUnknown | NoServer)
    (end,) = world.answer(world.submit(b"b", seconds=5))
    assert isinstance(end.error, NoServer)
    assert "0000000000000058" in str(end.error)
    assert "10.0.0.2:4747" in str(end.error)
    assert world.log.effects == [b"0"]


def test_a_client_without_a_session_gives_up_a_cluster_that_is_gone() -> None:
    """Two empty clusters met, and one of them dissolved."""
    world = World(2)
    world.answer(world.query(b"0"))
    world.crash(1)
    world.move_to_cluster(2, 88)
    world.leader = 2
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"


def test_of_two_clusters_the_first_one_heard_is_kept() -> None:
    world = World(2)
    world.move_to_cluster(2, 88)
    world.answer(world.query(b"0"))
    world.run_for(60 * SECOND)
    world.answer(world.query(b"1"))
    assert [server.node for server in world.client.servers] == [world.client.home]


# --- the server list --------------------------------------------------------------------------


def test_the_list_that_is_pushed_replaces_what_was_known() -> None:
    world = World(3)
    world.answer(world.submit(b"a"))
    assert [server.node for server in world.client.servers] == [1, 2, 3]
    world.members = world.servers[:2]
    world.lead(1)
    world.run_for(10 * MILLISECOND)
    assert [server.node for server in world.client.servers] == [1, 2]


def test_old_news_of_the_leader_are_ignored() -> None:
    world = World(3)
    world.lead(2)
    world.answer(world.submit(b"a"))
    world.leader = 3
    world.members = world.servers[1:2]
    world.servers[1].push_servers(term=1)
    world.servers[2].endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(3, 1)), world.now)
    world.leader = 2
    world.run_for(10 * MILLISECOND)
    assert world.client.leader == world.client.home == NodeId(2)
    assert len(world.client.servers) == 3
    world.servers[2].endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(3, 9)), world.now)
    world.run_for(10 * MILLISECOND)
    assert world.client.leader == NodeId(3)


def beacon_of(leader: int, term: int) -> Beacon:
    address = (f"10.0.0.{leader}", 4747)
    return Beacon("shop", 77, "", leader, address, Ballot(term, leader), 1, 0, ())


def test_the_list_is_bounded() -> None:
    world = World(limits=Limits(servers_max=3))
    world.answer(world.submit(b"a"))
    endpoint = world.servers[0].endpoint
    for leader in range(2, 50):
        endpoint.send_to(CLIENT_ADDRESS, encode(beacon_of(leader, leader)), world.now)
    world.run_for(10 * MILLISECOND)
    assert len(world.client.servers) == 3


def test_a_server_that_moved_is_found_at_its_new_address() -> None:
    world = World()
    world.answer(world.submit(b"0"))
    world.run_for(SECOND)
    world.move(1, ("10.1.1.1", 5_000))
    (end,) = world.answer(world.submit(b"a", seconds=3))
    assert end.value == b"ok:a"
    world.crash(1)
    world.move(1, ("10.2.2.2", 6_000))
    world.restart(1)
    (end,) = world.answer(world.submit(b"b", seconds=3))
    assert end.value == b"ok:b"


# --- bounds and garbage -----------------------------------------------------------------------


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


def test_deadlines_of_finished_calls_do_not_pile_up() -> None:
    world = World()
    world.servers[0].intercept = swallow
    world.submit(b"open", seconds=1_800)
    for _ in range(30):
        world.answer(*[world.query(b"q", seconds=3_600) for _ in range(100)])
    assert len(world.client._book._deadlines) < 1_300
