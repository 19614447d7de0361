"""How clusters come into being, with real disks between: no acceptance counts before it lasts."""

from __future__ import annotations

from itertools import permutations

import pytest
from scene import CLUSTER_ID, MS, Scene, Server, voter_set
from storm import Storm

from distinv.core import events
from distinv.core.events import Standing
from distinv.entry import NO_BALLOT, NodeId, VoterSet
from distinv.wire.messages import Beacon, BirthAnswer, BirthOffer, Join


def clusters(scene: Scene) -> set[int]:
    return {server.cluster_id for server in scene.servers.values() if server.cluster_id}


def voters_of(server: Server) -> tuple[NodeId, ...]:
    current = server.node.membership.current()
    assert current is not None
    return current.ids


@pytest.mark.parametrize(("count", "voters"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5)])
def test_the_lowest_found_become_an_odd_number_of_voters(count: int, voters: int) -> None:
    scene = Scene(count, born=False)
    leader = scene.settle()
    assert len(clusters(scene)) == 1
    assert voters_of(leader) == tuple(range(1, voters + 1))


@pytest.mark.parametrize("order", list(permutations((1, 2, 3))))
@pytest.mark.parametrize("gap_ms", [0, 40, 2_000])
def test_in_whatever_order_they_start(order: tuple[int, ...], gap_ms: int) -> None:
    scene = Scene(3, born=False)
    for server in scene.servers.values():
        server.crash(server.writes_under_way)
    for id in order:
        scene[id].start()
        scene.run(gap_ms)
    scene.settle()
    assert len(clusters(scene)) == 1


def test_servers_wait_for_those_they_expect() -> None:
    scene = Scene(3, born=False)
    scene[2].crash()
    scene.run(20_000)
    assert clusters(scene) == set()
    assert any("waiting for servers: 2 of 3" in line for line in scene[1].tells)
    scene[2].start()
    scene.settle()
    assert len(clusters(scene)) == 1


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("victim", [1, 2, 3])
def test_a_crash_at_any_point_leaves_one_cluster(victim: int, kept: int) -> None:
    for step in range(1, 160, 9):
        scene = Scene(3, born=False, seed=step, sync_us=700)
        for _ in range(step):
            scene.run(10_000, lambda: True)
        server = scene[victim]
        server.crash(min(kept, server.writes_under_way))
        scene.run(300)
        server.start()
        scene.settle()
        assert len(clusters(scene)) == 1


def test_all_crash_at_once_at_any_point() -> None:
    for step in range(1, 160, 7):
        scene = Scene(3, born=False, seed=step, sync_us=700)
        for _ in range(step):
            scene.run(10_000, lambda: True)
        for server in scene.servers.values():
            server.crash(step % (server.writes_under_way + 1))
        for server in scene.servers.values():
            server.start()
        scene.settle()
        assert len(clusters(scene)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_a_birth_in_a_storm_gives_one_cluster(seed: int) -> None:
    storm = Storm(seed, born=False)
    storm.run(2_500)
    assert len(clusters(storm.scene)) == 1


@pytest.mark.parametrize("seed", range(12))
def test_who_expects_nobody_may_split_but_no_two_clusters_share_an_acceptor(seed: int) -> None:
    """The witness looks at the disks of all acceptors at every birth."""
    storm = Storm(seed, born=False, expect=0)
    storm.run(2_500)
    assert storm.scene.witness.born


def test_an_acceptance_counts_only_when_it_is_durable_itself() -> None:
    """The end of an earlier write once counted for it: a sole voter announced a cluster, lost
    its acceptance in a crash, and founded another one. Who had heard of the first never joined."""
    scene = Scene(1, born=False, sync_us=1_800 * MS)
    server = scene[1]
    assert scene.run(1_700, lambda: server.writes_under_way == 2)
    scene.run(400)
    assert server.writes_under_way == 1, "its identity is durable, its acceptance is not"
    assert server.cluster_id == 0
    server.crash()
    server.sync_us = 100
    server.start()
    scene.settle()
    assert len(scene.witness.born) == 1


def test_who_belongs_to_a_cluster_refuses_other_proposals() -> None:
    """Silence left a server that had accepted its own proposal waiting for answers for ever."""
    scene = Scene(3, learners=1)
    scene.elect(1)
    stray = scene[4]
    for server in scene.servers.values():
        scene.cut((server.id, 4), (4, server.id))
    stray.restart()
    proposal = voter_set((2, 3, 4), cluster_id=5)
    stray.turn(events.Received(NodeId(2), BirthOffer(proposal)))
    assert stray.node.birth is not None
    assert stray.node.birth.accepted == proposal
    scene.heal()
    scene.settle()
    assert stray.cluster_id == CLUSTER_ID
    denials = scene.messages(BirthAnswer, to=4)
    assert denials
    assert not any(answer.accepted for answer in denials)


def test_the_refusal_of_a_member_waits_until_its_log_is_durable() -> None:
    """A crash would make it blank again, and free to accept what it refused."""
    scene = Scene(3, learners=1)
    scene.elect(1)
    learner = scene[4]
    assert scene.run(5_000, lambda: learner.durable_promise > NO_BALLOT)
    assert learner.node.birth is not None
    learner.stalled = True
    assert scene.run(5_000, lambda: learner.node.birth is None)
    learner.turn(events.Received(NodeId(9), BirthOffer(voter_set((4, 8, 9), cluster_id=5))))
    assert scene.messages(BirthAnswer, source=4) == []
    learner.stalled = False
    learner.sync()
    assert scene.messages(BirthAnswer, source=4) == [BirthAnswer(5, False, None)]


def test_fresh_servers_do_not_outvote_an_old_one() -> None:
    """State on disk wins: two blank servers wait beside one that cannot lead."""
    scene = Scene(3, learners=2, expect=2)
    scene[2].crash()
    scene[3].crash()
    scene[4].restart()
    scene[5].restart()
    scene.run(20_000)
    assert clusters(scene) == {CLUSTER_ID}
    assert scene[4].node.birth is not None
    assert scene.leader is None
    scene[2].start()
    scene.settle()
    assert scene[5].cluster_id == CLUSTER_ID


def test_a_proposal_of_another_size_is_refused_and_its_proposer_free_again() -> None:
    """It was ignored once: who had accepted it under another `expect` waited for ever."""
    scene = Scene(3, born=False, expect=3)
    for id in (2, 3):
        scene[id].expect = 5
        scene[id].restart()
    proposal = voter_set((1, 2, 3), cluster_id=5)
    scene[1].turn(events.Received(NodeId(2), BirthOffer(proposal)))
    scene.run(2_000)
    birth = scene[1].node.birth
    assert birth is not None
    assert birth.accepted is None
    assert clusters(scene) == set()


def test_a_proposal_of_another_name_is_not_even_refused_by_a_member() -> None:
    scene = Scene()
    server = scene[1]
    voters = voter_set((1, 8, 9)).voters
    server.turn(events.Received(NodeId(9), BirthOffer(VoterSet("other", 5, voters))))
    scene.run(10)
    assert scene.messages(BirthAnswer) == []


@pytest.mark.parametrize(("source", "name"), [(9, "other"), (1, "shop")])
def test_beacons_of_another_name_and_the_own_one_introduce_nobody(source: int, name: str) -> None:
    scene = Scene(1, born=False, expect=2)
    server = scene[1]
    for cluster_id in (0, 5):
        beacon = Beacon(name, cluster_id, "s9", source, None, NO_BALLOT, 0, 2, ())
        server.turn(events.BeaconSeen(NodeId(source), beacon))
    assert server.node.birth is not None
    assert server.node.birth.sees == ()
    assert server.node.birth.cluster_id == 0
    assert scene.messages(Join) == []


def test_a_server_is_blank_until_it_is_born() -> None:
    scene = Scene(1, born=False)
    node = scene[1].node
    standings = []

    def note(_: Server) -> None:
        if node.standing not in standings:
            standings.append(node.standing)

    scene.on_step = note
    scene.settle()
    assert standings == [Standing.BLANK, Standing.FOLLOWER, Standing.CANDIDATE, Standing.LEADER]


def test_an_id_is_unknown_until_it_is_durable() -> None:
    scene = Scene(1, born=False, sync_us=100 * MS)
    assert not scene[1].node.identified
    scene.run(99)
    assert not scene[1].node.identified
    scene.run(2)
    assert scene[1].node.identified
    scene[1].restart()
    assert scene[1].node.identified
