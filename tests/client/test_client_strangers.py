"""Servers within reach that are not ours: of another key, or of another cluster of the name."""

from __future__ import annotations

import pytest
from client_world import SECOND, World

from distinv.errors import NoServer, OutcomeUnknown, PermissionDenied

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
