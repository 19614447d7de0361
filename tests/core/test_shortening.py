"""Logs that have lost their beginning: who lacks it gets a snapshot, follower or candidate."""

from __future__ import annotations

from typing import Any

import pytest
from scene import MS, Scene, Server, voter_set

from distinv.config import Limits
from distinv.core import events
from distinv.core.durability import Durability
from distinv.core.events import Installed, InvariantBroken
from distinv.core.log import Log
from distinv.core.progress import Mode
from distinv.entry import NO_BALLOT, NO_HASH, Ballot, NodeId, Position
from distinv.storage.api import BaseRecord, PromiseRecord
from distinv.wire.messages import Append, AppendAck, Behind, PullReply

A, B, C = NodeId(1), NodeId(2), NodeId(3)
SHORT = Limits(log_keep_entries=3, append_window_entries=2)


def busy(leader: Server, count: int) -> None:
    """So many entries, one by one."""
    for number in range(1, count + 1):
        leader.submit(number)
        assert leader.scene.run(500, lambda: leader.applied == leader.node.log.last_index)


def short() -> tuple[Scene, Server]:
    """1 leads, 3 is cut off, and the others have lost the beginning of their logs."""
    scene = Scene(limits=SHORT)
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(3)
    busy(leader, 20)
    for server in (leader, scene[2]):
        server.shorten()
        assert server.node.log.base.index > 3
        scene.break_link(server.id, 3)  # what waited for the cut to end
    scene.run(10)
    return scene, leader


# --- who lags gets a snapshot -----------------------------------------------------------------


def test_a_follower_behind_the_log_is_told_so_and_goes_on_from_a_snapshot() -> None:
    scene, leader = short()
    scene.heal()
    assert scene.run(5_000, lambda: scene[3].fetches == [A])
    assert scene.messages(Behind, 1, 3)
    scene[3].install(leader)
    leader.submit(99)
    scene.settle()
    assert scene[3].node.log.base.index >= leader.node.log.base.index


def test_it_is_told_again_for_as_long_as_it_has_none() -> None:
    scene, leader = short()
    scene.heal()
    assert scene.run(5_000, lambda: len(scene[3].fetches) > 2)
    assert leader.serves


def test_who_knows_better_asks_for_no_snapshot() -> None:
    """A `Behind` that was under way while its log caught up, and one of an earlier leader."""
    scene = Scene()
    leader = scene.elect(1)
    leader.submit(1)
    scene.settle()
    ballot = leader.node.leader_ballot
    for message in (Behind(ballot, 2), Behind(Ballot(0, A), 99)):
        scene.post(leader, C, message)
        scene.run(10)
    assert scene[3].fetches == []


def test_a_learner_that_begins_behind_the_log_is_born_by_a_snapshot() -> None:
    scene = Scene(1, learners=1, limits=SHORT)
    scene[2].crash()
    leader = scene.elect(1)
    busy(leader, 20)
    leader.shorten()
    scene[2].start()
    assert scene.run(10_000, lambda: scene[2].fetches != [])
    assert scene[2].node.birth is not None
    scene[2].install(leader)
    assert scene[2].node.birth is None
    assert scene[2].cluster_id == leader.cluster_id
    leader.submit(99)
    scene.settle()


def test_who_holds_nothing_that_the_leader_still_has_gets_a_snapshot() -> None:
    """What it verified before the leader lost sight of it is not in the leader's log any more."""
    scene = Scene(limits=SHORT)
    leader = scene.elect(1)
    scene.settle()
    lost = scene.hold_between(lambda _, to, message: to == 3 and isinstance(message, Append))
    busy(leader, 20)
    leader.shorten()
    scene.break_link(1, 3)
    lost.clear()
    scene.release(lost)
    assert scene.run(5_000, lambda: scene[3].fetches != [])


def test_a_restarted_server_begins_where_its_store_is() -> None:
    scene, leader = short()
    base = leader.node.log.base
    leader.restart()
    assert leader.node.log.base == base
    assert leader.node.commit == leader.applied == leader.stored
    assert scene.run(5_000, lambda: scene.leader is not None)
    scene.leader.submit(99)  # type: ignore[union-attr]
    assert scene.run(1_000, lambda: scene.numbers()[-1] == 99)


def test_an_acknowledgement_from_before_the_logs_beginning_helps_nobody() -> None:
    """It was under way while the link was lost, and the log was shortened."""
    scene, leader = short()
    role: Any = leader.node.role
    assert role.progress_of(C).mode is Mode.PROBE
    leader.turn(events.Received(C, AppendAck(role.ballot, 2, 2, 0, leader.node.clock_us)))
    base = leader.node.log.base.index
    assert scene.messages(Behind, 1, 3)[-1] == Behind(role.ballot, base)
    assert role.progress_of(C).mode is Mode.PROBE


def test_a_log_without_entries_has_nothing_to_lose() -> None:
    scene, leader = short()
    follower = scene[3]
    follower.install(leader)
    base = follower.node.log.base
    follower.shorten()
    assert (follower.node.log.base, follower.node.log.last) == (base, base)


def test_who_crashed_before_its_log_knew_of_the_snapshot_promises_what_that_implies() -> None:
    """Seed 50058: the store was exchanged, and the write that raises the promise was lost."""
    scene, _ = short()
    leader = scene.elect(2)
    busy(leader, 2)
    ballot, base = leader.node.leader_ballot, leader.node.log.base_at(leader.applied)
    follower = scene[3]
    follower.crash()
    assert follower.durable_promise < base.position.ballot == ballot
    follower.storage.recover()
    follower.storage.commit([base])  # as `runtime/reconcile.py` does when it finds that store
    follower.storage.crash()
    follower.stored = base.position.index
    scene.witness.on_installed(follower, leader.history[: follower.stored])
    follower.start()
    assert follower.node.promised == ballot
    scene.run(10)
    assert follower.durable_promise == ballot
    scene.heal()
    leader.submit(99)
    scene.settle()


# --- a candidate ------------------------------------------------------------------------------


def test_a_candidate_that_lacks_what_only_a_snapshot_holds_gives_up_and_fetches_it() -> None:
    scene, leader = short()
    leader.crash()
    scene.heal()
    scene[3].node.become_candidate("the scene wants it", scene[3].node.leader_ballot)
    scene[3].turn()
    assert scene.run(2_000, lambda: scene[3].fetches == [B])
    replies = scene.messages(PullReply, 2, 3)
    assert (replies[-1].entries, replies[-1].base) == ((), scene[2].node.log.base.index)
    assert not scene[3].campaigns
    assert any("holds only a snapshot" in text for text in scene[3].tells)
    scene[3].install(scene[2])
    scene[3].node.become_candidate("the scene wants it", scene[3].node.leader_ballot)
    scene[3].turn()
    assert scene.run(2_000, lambda: scene.leader is not None)


def test_a_candidacy_ends_when_a_snapshot_changes_its_log() -> None:
    scene, leader = short()
    scene[3].node.become_candidate("the scene wants it", Ballot(1, A))
    scene[3].turn()
    assert scene[3].campaigns
    scene[3].install(leader)
    assert not scene[3].campaigns
    assert scene[3].node.log.base.index == leader.applied
    scene.heal()
    leader.submit(99)
    assert scene.run(5_000, lambda: scene[3].node.commit > leader.node.log.base.index)


# --- what must not be -------------------------------------------------------------------------


def test_a_snapshot_within_the_own_log_keeps_what_follows_it() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    follower = scene[3]
    scene.cut((3, 1), (1, 2), (2, 1))
    for number in range(1, 5):
        leader.submit(number)
        scene.run(10)
    at = follower.node.commit + 1
    position = follower.node.log.position(at)
    assert position is not None
    assert at < (last := follower.node.log.last_index)
    follower.stored = follower.applied = follower._commit = at
    follower.turn(Installed(BaseRecord(position, 0, 1, NO_BALLOT, voter_set((1, 2, 3)))))
    assert follower.node.log.base == position
    assert follower.node.log.last_index == last, "what the log holds behind it stays"


def test_a_snapshot_of_what_is_known_already_is_a_bug() -> None:
    scene = Scene()
    leader = scene.elect(1)
    leader.submit(1)
    scene.settle()
    position = leader.node.log.position(2)
    assert position is not None
    base = BaseRecord(position, 0, 1, NO_BALLOT, voter_set((1, 2, 3)))
    with pytest.raises(InvariantBroken, match="a snapshot at 2"):
        scene[2].step(Installed(base))


def test_a_store_below_the_logs_beginning_is_a_bug() -> None:
    _, leader = short()
    leader.crash()
    leader.stored = leader.node.log.base.index - 1
    with pytest.raises(InvariantBroken, match="the journal begins after"):
        leader.start()


def test_a_log_is_shortened_to_a_place_that_it_holds() -> None:
    _, leader = short()
    log = leader.node.log
    base = log.base_at(log.last_index)
    with pytest.raises(InvariantBroken, match="cannot compact"):
        log.compact(BaseRecord(log.base, 0, 1, NO_BALLOT, voter_set((1, 2, 3))))
    other = Position(base.position.index, base.position.ballot, NO_HASH)
    with pytest.raises(InvariantBroken, match="cannot compact"):
        log.compact(BaseRecord(other, 0, 1, NO_BALLOT, voter_set((1, 2, 3))))


def test_time_goes_on_from_the_snapshots() -> None:
    position = Position(7, Ballot(2, A), NO_HASH)
    base = BaseRecord(position, 1_234, 1, NO_BALLOT, voter_set((1, 2, 3)))
    assert Log([], cache_bytes=1, base=base).last_time_us == 1_234


def test_writes_under_way_vouch_for_no_less_than_the_snapshot() -> None:
    durability = Durability(3)
    durability.record(PromiseRecord(Ballot(1, A)))
    write = durability.take_write(3, 0)
    assert write is not None
    durability.installed(9)
    durability.persisted(write.ticket, 1 * MS)
    assert durability.durable_index == 9
