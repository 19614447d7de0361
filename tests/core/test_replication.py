"""How a leader serves each follower: stream, probe, catch-up; nobody stays behind for ever."""

from __future__ import annotations

import pytest
from scene import MS, Scene, Server, command, log_of

from distinv.config import Limits
from distinv.core import events
from distinv.core.leader import Leader
from distinv.core.progress import Mode, Progress
from distinv.entry import ORIGIN, Ballot, Entry, EntryKind, NodeId
from distinv.wire.batch import decode_batch
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    HeartbeatAck,
    Join,
    Pull,
    PullReply,
)

THREE = (1, 2, 3)
A, B, C = NodeId(1), NodeId(2), NodeId(3)
ONE = Ballot(1, A)


def progress(leader: Server, peer: int) -> Progress:
    assert isinstance(leader.node.role, Leader)
    found = leader.node.role.progress_of(NodeId(peer))
    assert found is not None
    return found


def entries_sent(scene: Scene, to: int) -> int:
    return sum(len(message.entries) for message in scene.messages(Append, to=to))


LOGS: dict[str, list[Entry]] = {
    "blank but for its birth": log_of(THREE),
    "a little behind": log_of(THREE, *[(1, 1)] * 20),
    "with a tail of its own": log_of(THREE, *[(1, 1)] * 10, *[(2, 3)] * 30),
    "longer, and of its own": log_of(THREE, *[(1, 2)] * 60),
    "mixed": log_of(THREE, *[(1, 1)] * 5, *[(2, 3)] * 3, *[(3, 2)] * 40),
}


@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("window", [1, 7, 1_024])
def test_whatever_a_follower_has_it_ends_with_the_leaders_log(name: str, window: int) -> None:
    mine = log_of(THREE, *[(1, 1)] * 25, *[(4, 1)] * 10)
    scene = Scene(
        logs={1: mine, 2: mine, 3: LOGS[name]},
        promised=dict.fromkeys(THREE, Ballot(4, A)),
        limits=Limits(append_window_entries=window),
    )
    leader = scene.elect(1)
    scene.settle()
    assert scene[3].durable == leader.durable
    assert progress(leader, 3).mode is Mode.STREAM


def test_one_that_keeps_up_gets_every_entry_once() -> None:
    scene = Scene()
    leader = scene.elect(1)
    for number in range(50):
        leader.submit(number)
        scene.run(5)
    scene.settle()
    assert entries_sent(scene, 2) == leader.node.log.last_index - 1
    assert scene.messages(AppendMismatch) == []


def test_a_dead_follower_holds_nobody_up() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene[3].crash()
    for number in range(50):
        leader.submit(number)
        assert scene.run(20, lambda last=number: last in scene.numbers())
    scene[3].start()
    scene.settle()
    assert scene[3].applied == leader.applied


def test_a_slow_disk_holds_nobody_up() -> None:
    scene = Scene()
    scene[3].sync_us = 900 * MS
    leader = scene.elect(1)
    for number in range(100):
        leader.submit(number)
        assert scene.run(20, lambda last=number: last in scene.numbers())
    assert scene.leader is leader
    scene.settle(30_000)


@pytest.mark.parametrize("seed", range(8))
def test_a_broken_link_costs_a_round_trip_and_no_entry(seed: int) -> None:
    scene = Scene(seed=seed, limits=Limits(append_window_entries=2 + seed % 3))
    leader = scene.elect(1)
    for number in range(40):
        leader.submit(number)
        if scene.random.random() < 0.3:
            scene.break_link(1, scene.random.choice((2, 3)))
        if scene.random.random() < 0.2:
            scene.break_link(scene.random.choice((2, 3)), 1)
        scene.run(scene.random.randrange(4))
    scene.settle()
    assert scene[2].durable == scene[3].durable == leader.durable


def test_entries_that_vanish_without_a_trace_are_missed_in_time() -> None:
    """A multicast strategy may be broken: what it swallows goes over the link later."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.lose = lambda source, to, message: (
        isinstance(message, Append) and to == 3 and len(message.entries) == 1
    )
    leader.submit(1)
    scene.run(20)
    assert scene[3].node.log.last_index == 2
    scene.lose = lambda *_: False
    assert scene.run(1_000, lambda: scene[3].applied == 3)


def test_one_that_lost_sight_of_its_leader_for_a_moment_is_verified_anew() -> None:
    """Storms 19 and 345. In an idle cluster its commit index stood still until the next write:
    it had begun again at nothing, and the leader believed it knew better."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.cut((1, 3))
    assert scene.run(2_000, lambda: scene[3].node.leader is None)
    scene.heal()
    assert scene.run(500, lambda: scene[3].node.leader == 1)
    assert scene.run(500, lambda: scene[3].node.role.verified == leader.node.log.last_index)
    scene[3].read(1)
    assert scene.run(50, lambda: 1 in scene[3].ready)


def test_a_commit_that_a_follower_missed_reaches_it_while_idle() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.submit(1)
    scene.run(1, lambda: 1 in scene.numbers())
    scene.cut((1, 3))
    assert scene.run(2_000, lambda: scene[3].node.leader is None)
    scene.heal()
    assert scene.run(1_500, lambda: scene[3].applied == leader.applied)


def test_late_mismatches_do_not_send_the_same_again() -> None:
    """Each answers an Append of before what was missing went out, and each sent it again."""
    mine = log_of(THREE, *[(1, 1)] * 100)
    scene = Scene(logs={1: mine, 2: mine, 3: log_of(THREE)}, promised=dict.fromkeys(THREE, ONE))
    scene.hold(lambda message: isinstance(message, AppendAck))
    leader = scene[1]
    leader.node.become_candidate("the scene wants it", ONE)
    leader.turn()
    assert scene.run(50, lambda: len(scene.messages(Append, to=3)) == 2)
    assert progress(leader, 3).verified == 0
    ballot = leader.node.leader_ballot
    for previous in (20, 40, 101):
        leader.turn(events.Received(C, AppendMismatch(ballot, previous, 1)))
    assert len(scene.messages(Append, to=3)) == 2
    leader.turn(events.Received(C, AppendMismatch(ballot, 1, 0)))
    assert len(scene.messages(Append, to=3)) == 3, "what was missing did not fit either"


def test_a_follower_with_a_committed_history_of_its_own_is_not_asked_without_end() -> None:
    """It holds that very place to be committed, and another entry in it: no answer helps."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(1)
    leader.submit(1)
    sent = len(scene.messages(Append))
    for _ in range(100):
        leader.turn(events.Received(C, AppendMismatch(leader.node.leader_ballot, 3, 3)))
    assert len(scene.messages(Append)) == sent
    assert progress(leader, 3).mode is Mode.PROBE


def test_a_late_mismatch_does_not_disturb_a_catch_up() -> None:
    """One chunk is under way; what answers an Append of before says nothing of it."""
    mine = log_of(THREE, *[(1, 1)] * 100)
    scene = Scene(
        logs={1: mine, 2: mine, 3: log_of(THREE)},
        promised=dict.fromkeys(THREE, ONE),
        limits=Limits(append_window_entries=7),
    )
    scene.hold_between(lambda source, to, message: isinstance(message, AppendAck) and source == 3)
    leader = scene.elect(1)
    assert progress(leader, 3).mode is Mode.CATCH_UP
    sent, at = len(scene.messages(Append, to=3)), progress(leader, 3).sent
    leader.turn(events.Received(C, AppendMismatch(leader.node.leader_ballot, at + 50, 0)))
    assert progress(leader, 3).sent == at
    assert len(scene.messages(Append, to=3)) == sent


def test_commands_given_to_a_follower_come_back() -> None:
    scene = Scene()
    scene.elect(1)
    scene.settle()
    scene[2].submit(1, 2)
    assert scene[2].not_appended == [command(1), command(2)]
    scene.run(1_000)
    assert scene.numbers() == []


def test_mismatches_of_strangers_and_of_another_ballot_are_not_served() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(1)
    leader.submit(1)
    ballot, sent = leader.node.leader_ballot, len(scene.messages(Append))
    leader.turn(events.Received(NodeId(77), AppendMismatch(ballot, 3, 2)))
    leader.turn(events.Received(C, AppendMismatch(Ballot(ballot.term - 1, A), 3, 2)))
    assert len(scene.messages(Append)) == sent
    leader.turn(events.Received(C, AppendMismatch(ballot, 3, 2)))
    assert len(scene.messages(Append)) == sent + 1


def test_who_does_not_hold_what_is_pulled_says_so() -> None:
    scene = Scene()
    scene[2].turn(events.Received(A, Pull(ONE, ORIGIN, 40, ONE)))
    scene[2].turn(events.Received(A, Pull(ONE, ORIGIN, 1, ONE)))
    assert scene.messages(PullReply, 2, 1) == [PullReply(ONE, ORIGIN, (), False, 0, 0)] * 2


def test_an_idle_cluster_is_not_probed() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.run(5_000)
    before = len(scene.messages(Append))
    for number in range(5):
        leader.submit(number)
        scene.run(1_000)
    assert len(scene.messages(Append)) - before == 10, "one to each follower, and no probe"


def test_acknowledgements_of_another_ballot_do_not_count() -> None:
    """The trap: a late one speaks of an entry that was truncated since, at the same index."""
    scene = Scene()
    first = scene.elect(1).node.leader_ballot
    scene.settle()
    second = scene.elect(2)
    scene.settle()
    scene.isolate(2)
    second.submit(1)
    index = second.node.log.last_index
    second.turn(events.Received(A, AppendAck(first, index, 0, 0, 0)))
    second.turn(events.Received(C, HeartbeatAck(first, index, 0, 0, 0)))
    assert second.node.commit < index


def test_an_acknowledgement_of_what_was_never_sent_is_not_believed() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.isolate(1)
    leader.submit(1)
    ballot, index = leader.node.leader_ballot, leader.node.log.last_index
    leader.turn(events.Received(B, AppendAck(ballot, index + 1, 0, 0, 0)))
    assert leader.node.commit < index
    assert any("never sent" in line for line in leader.tells)


def test_a_learner_gets_the_log_and_joins_again_after_a_long_absence() -> None:
    scene = Scene(3, learners=1)
    leader = scene.elect(1)
    leader.submit(1)
    scene.settle()
    assert scene[4].applied == leader.applied
    scene.isolate(4)
    scene.run(60_000)
    assert 4 not in leader.node.role.peers  # type: ignore[union-attr]
    leader.submit(2)
    scene.heal()
    scene.settle()
    assert scene[4].applied == leader.applied


def test_learners_are_bounded() -> None:
    scene = Scene(3, limits=Limits(servers_max=5))
    leader = scene.elect(1)
    for id in range(10, 30):
        leader.turn(events.Received(NodeId(id), Join(f"s{id}")))
    assert len(leader.node.role.peers) == 5  # type: ignore[union-attr]
    leader.turn(events.Received(B, Join("a voter")))
    assert progress(leader, 2).name == ""  # it was known before


def test_the_next_batch_forms_while_the_last_one_syncs() -> None:
    scene = Scene(sync_us=10 * MS)
    leader = scene.elect(1)
    scene.settle()
    for number in range(30):
        leader.submit(number)
    scene.settle()
    assert scene.numbers() == list(range(30))
    assert leader.node.log.last_index <= 5


@pytest.mark.parametrize(("batch_bytes", "together"), [(1, 1), (160, 2), (1_000, 10)])
def test_a_batch_is_bounded_in_bytes_but_holds_one_command(batch_bytes: int, together: int) -> None:
    scene = Scene(limits=Limits(batch_bytes=batch_bytes))
    leader = scene.elect(1)
    leader.submit(*range(10))
    scene.settle()
    assert scene.numbers() == list(range(10))
    batches = [
        len(decode_batch(entry.payload))
        for entry in scene.committed
        if entry.kind == EntryKind.COMMANDS
    ]
    assert batches == [together] * (10 // together)


def test_a_deposed_leader_gives_back_what_it_did_not_append() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.stalled = True
    leader.submit(1)
    leader.submit(2)
    assert leader.node.log.last_index == 3, "the second waits for the first one's sync"
    scene.run(3_000)
    assert not leader.leads
    assert [each.number for each in leader.not_appended] == [2]  # type: ignore[union-attr]
    assert scene.run(5_000, lambda: scene.numbers() == [1]), "what was appended may survive"
