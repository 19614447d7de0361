"""Commands are one numbered stream: how far ahead it runs, and how it goes back."""

from __future__ import annotations

import pytest
from client_script import numbers, requests, swallow
from client_world import MILLISECOND, FakeServer, World

from distinv.config import Limits
from distinv.entry import NodeId
from distinv.errors import DistinvError, InvalidRequest, VersionMismatch
from distinv.wire.messages import Message, NotTaken, Request


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


@pytest.mark.parametrize("command", [b"", bytes(Limits().client_window_bytes + 1)])
def test_a_command_of_impossible_size_is_invalid(command: bytes) -> None:
    with pytest.raises(InvalidRequest):
        World().submit(command)


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


@pytest.mark.parametrize(
    ("reason", "error"),
    [("invalid_request", InvalidRequest), ("version_mismatch", VersionMismatch)],
)
def test_a_command_that_servers_cannot_read_is_refused_and_does_not_stop_the_rest(
    reason: str, error: type[DistinvError]
) -> None:
    world = World()
    world.answer(world.submit(b"0"))

    def refuse(server: FakeServer, peer: NodeId, message: Message) -> bool:
        if isinstance(message, Request) and message.command == b"bad":
            server.send(
                peer,
                NotTaken(message.session, message.number, 1, reason, "no", 0, None),
            )
            return True
        return False

    world.servers[0].intercept = refuse
    bad, good = world.submit(b"bad"), world.submit(b"good")
    (end, after) = world.answer(bad, good)
    assert isinstance(end.error, error)
    assert str(end.error) == "no"
    assert after.value == b"ok:good"
    assert world.log.effects == [b"0", b"good"]
