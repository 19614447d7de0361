"""The cluster of a client dissolves: its servers belong to another one of the name."""

from __future__ import annotations

import pytest
from client_world import CLUSTER, CLUSTER_ID, World

from distinv.errors import NoServer, OutcomeUnknown
from distinv.wire.codec import encode
from distinv.wire.messages import ClusterDissolved

OTHER = 88
CLIENT = ("10.0.0.200", 5000)


def dissolved(world: World, gone: ClusterDissolved) -> None:
    """Server 1 is no more; 2 belongs to another cluster, leads there, and knows what was."""
    world.crash(1)
    world.by_node[2].gone = gone
    world.move_to_cluster(2, OTHER)
    world.leader = 2


def test_a_client_without_a_session_goes_along_at_once() -> None:
    world = World(2)
    world.answer(world.query(b"0"))
    dissolved(world, ClusterDissolved(CLUSTER, CLUSTER_ID, OTHER))
    began = world.now
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"
    assert world.now - began < world.timing.suspect_ceiling_us, "told, not by lack of patience"


def test_a_client_with_a_session_does_not_believe_it() -> None:
    """Its commands are in that cluster, so it cannot have dissolved."""
    world = World(2)
    world.answer(world.submit(b"0"))
    dissolved(world, ClusterDissolved(CLUSTER, CLUSTER_ID, OTHER))
    (end,) = world.answer(world.submit(b"a", seconds=5))
    assert isinstance(end.error, OutcomeUnknown | NoServer)
    assert world.log.effects == [b"0"]


def tell(world: World, word: ClusterDissolved) -> None:
    """A server of another cluster says so unasked."""
    server = world.servers[-1]
    server.cluster_id = OTHER
    server.start()
    server.endpoint.send_to(CLIENT, encode(word), world.now)
    for _, data in server.endpoint.flush(world.now):
        world.client.receive(data, server.address, world.now)


@pytest.mark.parametrize(
    "word",
    [
        ClusterDissolved(CLUSTER, CLUSTER_ID, OTHER),
        ClusterDissolved("barn", CLUSTER_ID, OTHER),
        ClusterDissolved(CLUSTER, 66, OTHER),
        ClusterDissolved(CLUSTER, 0, OTHER),
    ],
)
def test_a_client_that_has_a_server_stays(word: ClusterDissolved) -> None:
    world = World(2)
    world.answer(world.query(b"0"))
    home = world.client.home
    tell(world, word)
    assert world.client.home == home
    assert world.client_endpoint.cluster_id == CLUSTER_ID
    (end,) = world.answer(world.submit(b"a"))
    assert end.value == b"ok:a"


@pytest.mark.parametrize(
    ("word", "held"),
    [
        (ClusterDissolved(CLUSTER, CLUSTER_ID, OTHER), 0),
        (ClusterDissolved("barn", CLUSTER_ID, OTHER), CLUSTER_ID),
        (ClusterDissolved(CLUSTER, 66, OTHER), CLUSTER_ID),
    ],
)
def test_only_a_word_about_its_own_cluster_matters(word: ClusterDissolved, held: int) -> None:
    world = World(2)
    world.answer(world.query(b"0"))
    world.crash(1)
    world.crash(2)
    world.answer(world.query(b"1", seconds=2))
    assert world.client.home is None
    tell(world, word)
    assert world.client_endpoint.cluster_id == held


def test_a_client_of_no_cluster_loses_none() -> None:
    world = World(2)
    for number in (1, 2):
        world.move_to_cluster(number, 0)
    world.leader = None
    world.answer(world.query(b"0", seconds=2))
    world.crash(1)
    world.crash(2)
    world.answer(world.query(b"1", seconds=2))
    assert world.client.home is None
    tell(world, ClusterDissolved(CLUSTER, 0, OTHER))
    assert len(world.client.servers) == 2
