"""A cluster without client commands meets another of its name, and gives way to it."""

from __future__ import annotations

from random import Random

import pytest
from attrs import evolve
from scene import CLUSTER_ID, MS, Scene, Server, command, voter_set
from test_changes import QUICK, grown

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.birth import Birth
from distinv.core.dissolution import gives_way_to, may_give_way
from distinv.entry import (
    KIND_SINCE,
    NO_BALLOT,
    NO_HASH,
    EntryKind,
    NodeId,
    Position,
    Successor,
    decode_successor,
)
from distinv.storage.api import BaseRecord, BirthRecord
from distinv.wire.messages import AppendAck, Beacon, Heartbeat, HeartbeatAck

LOWER, HIGHER = CLUSTER_ID - 1, CLUSTER_ID + 1


def meet(server: Server, cluster_id: int = HIGHER, *, touched: bool = True) -> None:
    server.turn(events.OtherClusterMet(cluster_id, "theirs", touched))


def kinds(server: Server) -> list[int]:
    """Of the entries in its log."""
    log = server.node.log
    bodies = log.bodies(log.base.index + 1, log.last_index, 1 << 30)
    return [entry.kind for entry in bodies or ()]


def is_over(scene: Scene, *ids: int) -> bool:
    return all(gives_way_to(scene[id].node) is not None for id in ids)


def settled(count: int = 3) -> tuple[Scene, Server]:
    scene = Scene(count)
    leader = scene.elect(1)
    scene.settle()
    return scene, leader


# --- the decision -----------------------------------------------------------------------------


def test_an_untouched_cluster_gives_way_to_a_touched_one() -> None:
    scene, leader = settled()
    meet(leader, HIGHER, touched=True)
    assert scene.run(2_000, lambda: is_over(scene, 1, 2, 3))
    for server in scene.servers.values():
        assert kinds(server)[-1] == EntryKind.DISSOLVED
        assert gives_way_to(server.node) == Successor(HIGHER, "theirs")
    assert any("dissolving this cluster" in text for text in leader.tells)


@pytest.mark.parametrize(
    ("other", "touched", "gives_way"),
    [
        (LOWER, False, True),
        (LOWER, True, True),
        (HIGHER, True, True),
        (HIGHER, False, False),
        (CLUSTER_ID, True, False),
        (0, True, False),
    ],
)
def test_who_gives_way(other: int, touched: bool, gives_way: bool) -> None:
    scene, leader = settled()
    meet(leader, other, touched=touched)
    scene.run(1_000)
    assert is_over(scene, 1, 2, 3) is gives_way


def test_only_a_leader_decides() -> None:
    scene, _ = settled()
    meet(scene[2])
    scene.run(1_000)
    assert EntryKind.DISSOLVED not in kinds(scene[2])


def test_a_client_command_keeps_a_cluster() -> None:
    scene, leader = settled()
    leader.submit(1)
    meet(leader)
    scene.settle()
    meet(leader)
    scene.run(1_000)
    assert EntryKind.DISSOLVED not in kinds(leader)
    assert scene.numbers() == [1]


def test_a_command_that_was_dropped_again_keeps_its_server_from_deciding() -> None:
    """What a server says of itself may have made another cluster give way: it goes on saying it."""
    scene, leader = settled()
    scene.isolate(1)
    leader.submit(1)
    scene.elect(2)
    scene.heal()
    scene.settle()
    assert scene.numbers() == []
    assert [server.node.touched for server in scene.servers.values()] == [True, False, False]
    leader = scene.elect(1)
    meet(leader)
    assert not may_give_way(leader.node)
    assert EntryKind.DISSOLVED not in kinds(leader)


def test_nothing_else_may_be_under_way() -> None:
    scene, leader = settled()
    leader.turn(events.Transfer(NodeId(2)))
    meet(leader)
    assert EntryKind.DISSOLVED not in kinds(leader)
    assert scene.run(2_000, lambda: scene[2].serves)
    scene.run(2_000)
    scene[1].stalled = scene[3].stalled = True
    scene[2].order(7, 3, votes=False)
    assert scene.run(100, lambda: kinds(scene[2])[-1] == EntryKind.VOTERS)
    meet(scene[2])
    assert kinds(scene[2])[-1] == EntryKind.VOTERS


def test_a_queued_command_keeps_it() -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    scene.settle()
    leader.step(events.Submit(command(5)))
    leader.step(events.OtherClusterMet(HIGHER, "theirs", True))
    leader.turn()
    scene.settle()
    assert scene.numbers() == [5]
    assert EntryKind.DISSOLVED not in kinds(leader)


def test_it_waits_for_servers_of_an_earlier_release(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, leader = settled()
    monkeypatch.setitem(KIND_SINCE, EntryKind.DISSOLVED, 2)
    meet(leader)
    scene.run(1_000)
    assert EntryKind.DISSOLVED not in kinds(leader)


# --- from then on -----------------------------------------------------------------------------


def test_nothing_is_taken_behind_it() -> None:
    scene, leader = settled()
    held = scene.hold(lambda message: isinstance(message, (AppendAck, HeartbeatAck)))
    meet(leader)
    leader.submit(1, 2)
    leader.order(7, 2, votes=False)
    assert len(leader.not_appended) == 2
    assert leader.answers[7].detail == "no_leader"
    meet(leader, LOWER)
    assert kinds(leader).count(EntryKind.DISSOLVED) == 1
    scene.release(held)
    assert scene.run(2_000, lambda: is_over(scene, 1, 2, 3))


def test_nobody_is_promoted_meanwhile() -> None:
    scene = grown(3, 2)
    leader = scene[1]
    scene[2].stalled = scene[3].stalled = True
    meet(leader)
    leader.node.timing = evolve(QUICK, promote_after_us=0)
    scene.run(QUICK.disk_stall_us // MS - 100)
    assert leader.serves
    assert kinds(leader)[-1] == EntryKind.DISSOLVED
    assert not is_over(scene, 1)


def test_an_entry_of_a_leader_that_was_cut_off_is_undone() -> None:
    scene, leader = settled()
    scene.isolate(1)
    meet(leader)
    assert leader.node.log.dissolved is not None
    other = scene.elect(2)
    other.submit(1)
    scene.heal()
    scene.settle()
    assert leader.node.log.dissolved is None
    assert gives_way_to(leader.node) is None
    assert scene.numbers() == [1]


def test_a_new_leader_that_finds_it_goes_on_with_it() -> None:
    scene, leader = settled()
    scene.lose = lambda source, to, message: to == 1  # the others have it, and nobody learns so
    meet(leader)
    scene.run(50)
    leader.crash()
    scene.heal()
    assert scene[2].node.log.dissolved is not None
    assert gives_way_to(scene[2].node) is None
    held = scene.hold(lambda message: isinstance(message, (AppendAck, HeartbeatAck)))
    scene[2].node.become_candidate("the scene wants it", scene[2].node.leader_ballot)
    scene[2].turn()
    assert scene.run(1_000, lambda: scene[2].leads)
    scene[2].submit(1)
    assert len(scene[2].not_appended) == 1
    scene.release(held)
    assert scene.run(2_000, lambda: is_over(scene, 2, 3))
    assert scene.numbers() == []


def test_the_leader_goes_last_of_those_it_reaches() -> None:
    scene, leader = settled()
    held = scene.hold_between(
        lambda source, to, message: to == 3 and isinstance(message, Heartbeat)
    )
    meet(leader)
    assert scene.run(200, lambda: is_over(scene, 2))
    assert scene[3].node.log.dissolved is not None
    assert not is_over(scene, 3)
    assert not is_over(scene, 1), "3 is there, and could learn it from nobody else"
    scene.release(held)
    assert scene.run(200, lambda: is_over(scene, 1, 3))


def test_the_leader_does_not_wait_for_who_is_not_there() -> None:
    scene, leader = settled()
    scene[3].crash()
    scene.run(2_000)
    meet(leader)
    assert scene.run(1_000, lambda: is_over(scene, 1, 2))


# --- what is known of the log -----------------------------------------------------------------


def test_a_touched_snapshot_touches() -> None:
    scene, leader = settled()
    for touched in (False, True):
        position = Position(leader.node.commit + 10, leader.node.leader_ballot, NO_HASH)
        base = BaseRecord(position, 1, 1, NO_BALLOT, voter_set([1, 2, 3]))
        leader.node.step(events.Installed(base, touched), scene.now)
        assert leader.node.touched is touched


def test_a_successor_that_cannot_be_read_names_none() -> None:
    for payload in (b"", b"\xff", b"\x92\x01", b"\x92\x80\xa0"):
        assert decode_successor(payload) == Successor(0, "")


# --- who was to be born with a cluster that is no more ----------------------------------------


def blank(*, joins: int = 0, accepted: int = 0) -> Birth:
    record = BirthRecord(voter_set([1, 2, 3], accepted) if accepted else None, ())
    return Birth(
        NodeId(1),
        "s1",
        "shop",
        3,
        record,
        timing=Timing(),
        limits=Limits(),
        random=Random(1),
        now=0,
        joins=joins,
    )


def heard(birth: Birth, now: int) -> None:
    """Two others like it: all that are expected."""
    for node in (2, 3):
        birth.on_beacon(
            NodeId(node), Beacon("shop", 0, f"s{node}", 0, None, NO_BALLOT, 0, 3, ()), now
        )


def test_who_knows_whom_to_join_proposes_nothing() -> None:
    birth = blank(joins=HIGHER)
    assert birth.cluster_id == HIGHER
    heard(birth, 0)
    for now in range(0, 60_000 * MS, 50 * MS):
        birth.on_deadline(now)
    assert birth.accepted is None


def test_a_cluster_that_is_gone_is_not_waited_for() -> None:
    birth = blank(joins=HIGHER)
    assert birth.on_gone(LOWER, 0) == []
    assert birth.on_gone(HIGHER, 0) != []
    assert birth.cluster_id == 0
    assert birth.on_gone(HIGHER, 0) == []
    heard(birth, 0)
    for now in range(0, 5_000 * MS, 50 * MS):
        birth.on_deadline(now)
    assert birth.accepted is not None


def test_an_acceptance_of_a_cluster_that_is_gone_is_given_up() -> None:
    birth = blank(accepted=HIGHER, joins=LOWER)
    assert birth.cluster_id == HIGHER
    assert birth.on_gone(LOWER, 0) == []
    assert birth.on_gone(HIGHER, 0) != []
    assert birth.accepted is None
    assert birth.record().refused == (HIGHER,)


def test_a_blank_server_is_told_and_another_does_not_mind() -> None:
    scene = Scene(3, born=False, expect=3)
    scene.isolate(1)
    scene[1].turn(
        events.BeaconSeen(NodeId(9), Beacon("shop", 5, "x", 0, None, NO_BALLOT, 1, 0, ()))
    )
    scene[1].turn(events.ClusterGone(5))
    assert any("is dissolved: looking for another" in text for text in scene[1].tells)
    scene.heal()
    scene.settle()
    commit = scene[1].node.commit
    scene[1].turn(events.ClusterGone(scene[1].cluster_id))
    assert scene[1].node.commit == commit
