"""A candidate's way: pre-vote, prepare, synchronise; and what happens when others are on theirs."""

from __future__ import annotations

from typing import Any

import pytest
from scene import MS, Scene, log_of

from distinv.config import Limits
from distinv.core import events
from distinv.core.candidate import Candidate, Stage
from distinv.entry import Ballot, NodeId
from distinv.wire.messages import (
    BallotRefused,
    Heartbeat,
    NominateHint,
    Prepare,
    PrepareRefused,
    PreVote,
    PreVoteReply,
    Promise,
    Pull,
    PullReply,
    TransferOrder,
)

THREE = (1, 2, 3)
A, B, C = NodeId(1), NodeId(2), NodeId(3)
BEHIND = log_of(THREE, (1, 1))
AHEAD = log_of(THREE, (1, 1), *[(2, 2)] * 30)
PROMISED = dict.fromkeys(THREE, Ballot(2, B))


def campaign(scene: Scene, id: int, ordered_by: Ballot = PROMISED[1]) -> None:
    scene[id].node.become_candidate("the scene wants it", ordered_by)
    scene[id].turn()


# --- pre-vote ---------------------------------------------------------------------------------


def test_a_pre_vote_moves_no_ballot() -> None:
    scene = Scene()
    scene.elect(1)
    scene.settle()
    promised = [server.node.promised for server in scene.servers.values()]
    scene[3].node.become_candidate("the scene wants it")
    scene[3].turn()
    scene.run(50)
    assert [server.node.promised for server in scene.servers.values()] == promised
    assert scene.messages(PreVote, 3)
    assert not any(reply.granted for reply in scene.messages(PreVoteReply, to=3))
    assert scene[1].serves
    assert scene[3].node.leader == 1


def test_a_lost_pre_vote_is_asked_again() -> None:
    scene = Scene()
    scene.lose = lambda source, to, message: isinstance(message, PreVote) and scene.now < 1_050_000
    scene[1].node.become_candidate("the scene wants it")
    scene[1].turn()
    assert scene.run(300, lambda: scene[1].leads)


def test_answers_to_an_earlier_pre_vote_do_not_count() -> None:
    scene = Scene()
    scene.isolate(1)
    scene[1].node.become_candidate("the scene wants it")
    scene[1].turn()
    number = scene.messages(PreVote, 1)[0].number
    for answer in (number + 1, number - 1):
        scene[1].turn(events.Received(B, PreVoteReply(answer, True, Ballot(0, A), 0)))
    assert scene.messages(Prepare, 1) == []
    scene[1].turn(events.Received(B, PreVoteReply(number, True, Ballot(0, A), 0)))
    scene.run(5)
    assert scene.messages(Prepare, 1)


def test_it_prepares_above_everything_it_was_told_of() -> None:
    scene = Scene(promised={1: Ballot(1, A), 2: Ballot(40, C), 3: Ballot(2, A)})
    campaign(scene, 1)
    assert scene.run(2_000, lambda: scene[1].leads or scene[1].node.promised.term > 40)
    scene.settle()
    assert scene.leader is not None
    assert scene.leader.node.leader_ballot.term > 40


def test_a_reported_ballot_out_of_the_blue_is_not_followed_up_to() -> None:
    scene = Scene()
    scene.isolate(1)
    scene[1].node.become_candidate("the scene wants it")
    scene[1].turn()
    number = scene.messages(PreVote, 1)[0].number
    reply = PreVoteReply(number, True, Ballot(1 << 60, C), 0)
    scene[1].turn(events.Received(B, reply))
    assert scene[1].node.promised == Ballot(1, A)


def test_only_voters_campaign() -> None:
    scene = Scene(3, learners=1)
    scene.elect(1)
    scene.settle()
    for id in THREE:
        scene[id].crash()
    scene[4].turn(events.Received(A, NominateHint("scene")))
    scene.run(20_000)
    assert scene.messages(PreVote, 4) == []


# --- prepare ----------------------------------------------------------------------------------


def test_prepare_is_asked_again_and_a_candidate_without_answers_gives_up() -> None:
    scene = Scene()
    scene.cut((2, 1), (3, 1))
    campaign(scene, 1, Ballot(1, B))
    scene.run(350)
    assert len(scene.messages(Prepare, 1, 2)) == 4
    scene.run(100)
    assert not scene[1].campaigns


def test_campaigns_become_patient_until_the_disks_are_fast_enough() -> None:
    """With every sync at 450 ms each campaign ended, at 400 ms, before its promises came."""
    scene = Scene(sync_us=450 * MS)
    assert scene.run(15_000, lambda: scene.leader is not None)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_slow_network_and_slow_disks_elect_a_leader_all_the_same(count: int) -> None:
    scene = Scene(count, latency_us=20 * MS, sync_us=200 * MS)
    assert scene.run(10_000, lambda: scene.leader is not None)


def test_who_promised_gives_the_other_time() -> None:
    scene = Scene()
    scene[2].turn(events.Received(A, Prepare(Ballot(1, A), Ballot(0, A))))
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert not scene[2].campaigns
    scene.run(399)
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert not scene[2].campaigns
    scene.run(2)
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert scene[2].campaigns


def test_a_refused_candidate_gives_up_at_once() -> None:
    scene = Scene()
    scene.isolate(1)
    campaign(scene, 1, Ballot(1, B))
    scene.run(5)
    ballot = scene[1].node.promised
    scene[1].turn(events.Received(B, PrepareRefused(ballot, Ballot(9, C), 0)))
    assert scene[1].campaigns, "one of three is not enough"
    scene[1].turn(events.Received(C, PrepareRefused(ballot, Ballot(9, C), 0)))
    assert not scene[1].campaigns


def test_a_candidate_follows_whoever_leads_above_it() -> None:
    scene = Scene()
    scene.isolate(1)
    campaign(scene, 1, Ballot(1, B))
    scene[1].turn(events.Received(C, Heartbeat(Ballot(1, C), 1, 1, 0)))
    assert not scene[1].campaigns
    assert scene[1].node.leader == C


def test_a_candidate_refuses_a_leader_below_it_and_names_nobody() -> None:
    scene = Scene()
    scene.isolate(2)
    campaign(scene, 2, Ballot(1, B))
    scene[2].turn(events.Received(A, Heartbeat(Ballot(0, A), 1, 1, 0)))
    assert scene.messages(BallotRefused, 2) == [BallotRefused(Ballot(0, A), Ballot(1, B), 0)]


# --- synchronise ------------------------------------------------------------------------------


@pytest.mark.parametrize("pull_bytes", [1, 50, 1 << 20])
def test_a_candidate_pulls_exactly_what_was_promised(pull_bytes: int) -> None:
    logs = {1: BEHIND, 2: AHEAD, 3: BEHIND}
    scene = Scene(logs=logs, promised=PROMISED, limits=Limits(pull_bytes=pull_bytes))
    scene.cut((2, 3), (3, 2))
    scene.lose = lambda source, to, message: isinstance(message, Promise) and source == 3
    scene.elect(1)
    scene.heal()
    scene.settle()
    assert scene.committed[: len(AHEAD)] == AHEAD
    assert scene.messages(Pull, 1)


def test_its_own_conflicting_tail_goes() -> None:
    mine = log_of(THREE, (1, 1), *[(1, 1)] * 50)
    scene = Scene(logs={1: mine, 2: AHEAD, 3: BEHIND}, promised=PROMISED)
    scene.isolate(3)
    scene.elect(1)
    assert scene[1].durable[: len(AHEAD)] == AHEAD


def test_who_else_promised_the_same_place_helps_out() -> None:
    """Positions are promised, bodies pulled: from anybody who holds that very place."""
    five = (1, 2, 3, 4, 5)
    behind, ahead = log_of(five, (1, 1)), log_of(five, *[(2, 2)] * 30)
    logs = {1: behind, 2: ahead, 3: ahead, 4: behind, 5: behind}
    scene = Scene(5, logs=logs, promised=dict.fromkeys(five, Ballot(2, B)))
    scene.isolate(4)
    scene.isolate(5)
    campaign(scene, 1)
    assert scene.run(100, lambda: stage_of(scene) is Stage.SYNCHRONISE)
    source = next(to for _, to, m in scene.sent if isinstance(m, Pull))
    other = 5 - source
    ballot = scene[1].node.promised
    position = log_of(five, (1, 1))[0].position
    gone = PullReply(ballot, position, (), False, 0)
    scene[1].turn(events.Received(NodeId(source), gone))
    assert [to for _, to, message in scene.sent if isinstance(message, Pull)][-1] == other
    assert scene.run(200, lambda: scene[1].leads)
    assert scene[1].node.log.ballot_at(31) == Ballot(2, B)


def stage_of(scene: Scene) -> Any:
    role = scene[1].node.role
    return role._stage if isinstance(role, Candidate) else None


def test_when_nobody_holds_the_promised_log_any_more_it_starts_again_higher() -> None:
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: AHEAD}, promised=PROMISED)
    scene.isolate(3)
    pulls = scene.hold(lambda message: isinstance(message, Pull))
    campaign(scene, 1)
    assert scene.run(100, lambda: bool(pulls))
    ballot = scene[1].node.promised
    pulls.clear()
    scene.release(pulls)
    scene[1].turn(events.Received(B, PullReply(ballot, BEHIND[-1].position, (), False, 0)))
    assert not scene[1].campaigns
    scene.heal()
    scene.settle()
    assert scene.committed[: len(AHEAD)] == AHEAD


def test_a_pull_without_progress_ends() -> None:
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: BEHIND}, promised=PROMISED)
    scene.isolate(3)
    scene.lose = lambda source, to, message: isinstance(message, PullReply)
    campaign(scene, 1)
    scene.run(350)
    assert stage_of(scene) is Stage.SYNCHRONISE
    assert len(scene.messages(Pull, 1)) == 3, "every further answer would go behind the first"
    scene.run(100)
    assert not scene[1].campaigns


def test_while_it_pulls_nobody_else_campaigns() -> None:
    """It said that it lives only when the pull stood still, so others campaigned into it."""
    many = log_of(THREE, (1, 1), *[(2, 2)] * 400)
    scene = Scene(
        logs={1: BEHIND, 2: many, 3: BEHIND},
        promised=PROMISED,
        limits=Limits(pull_bytes=1),
        latency_us=5 * MS,
    )
    scene.lose = lambda source, to, message: isinstance(message, Promise) and source == 3
    scene.elect(1, ms=10_000)
    assert scene.messages(Prepare, 2) == scene.messages(Prepare, 3) == []
    assert scene.committed[: len(many)] == many


def test_what_does_not_follow_by_hash_is_not_taken() -> None:
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: BEHIND}, promised=PROMISED)
    scene.isolate(3)
    pulls = scene.hold(lambda message: isinstance(message, Pull))
    campaign(scene, 1)
    assert scene.run(100, lambda: bool(pulls))
    ballot, last = scene[1].node.promised, scene[1].node.log.last
    reply = PullReply(ballot, last, tuple(AHEAD[5:9]), True, 0)
    scene[1].turn(events.Received(B, reply))
    assert scene[1].node.log.last == last
    scene.release(pulls)
    assert scene.run(200, lambda: scene[1].leads)


def test_a_large_gap_is_left_to_who_is_ahead_once() -> None:
    limits = Limits(forfeit_entries=10)
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: BEHIND}, promised=PROMISED, limits=limits)
    scene.isolate(3)
    campaign(scene, 1)
    assert scene.run(200, lambda: scene[2].serves)
    assert scene.messages(NominateHint, 1, 2)
    assert scene.messages(Pull, 1) == []


def test_a_second_time_it_pulls_whatever_the_size() -> None:
    limits = Limits(forfeit_entries=10)
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: BEHIND}, promised=PROMISED, limits=limits)
    scene.isolate(3)
    scene.lose = lambda source, to, message: isinstance(message, (NominateHint, PreVote))
    campaign(scene, 1)
    scene.run(50)
    assert not scene[1].campaigns
    campaign(scene, 1)
    assert scene.run(200, lambda: scene[1].serves)


# --- hand-over --------------------------------------------------------------------------------


def test_a_hand_over_is_quick_and_loses_nothing() -> None:
    scene = Scene()
    leader = scene.elect(1)
    asked = len(scene.messages(PreVote))
    leader.submit(1)
    leader.turn(events.Transfer(C))
    leader.submit(2)
    assert scene.run(50, lambda: scene[3].serves)
    scene.settle()
    assert len(scene.messages(PreVote)) == asked, "the order stands in for it"
    undone = [each.number for each in leader.not_appended]  # type: ignore[union-attr]
    assert sorted(scene.numbers() + undone) == [1, 2]


def test_without_a_target_the_one_that_has_most_is_chosen() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[2].stalled = True
    leader.submit(1)
    scene.run(50)
    leader.turn(events.Transfer(None))
    assert scene.run(50, lambda: scene[3].serves)


def test_a_hand_over_to_the_dead_is_called_off() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].crash()
    leader.turn(events.Transfer(C))
    scene.run(400)
    assert leader.node.role.handing_over  # type: ignore[union-attr]
    scene.run(200)
    assert leader.serves
    assert not leader.node.role.handing_over  # type: ignore[union-attr]
    leader.submit(1)
    assert scene.run(50, lambda: scene.numbers() == [1])


def test_nobody_is_ordered_before_it_has_everything() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].stalled = True
    leader.submit(1)
    leader.turn(events.Transfer(C))
    scene.run(300)
    assert scene.messages(TransferOrder) == []
    scene[3].stalled = False
    scene[3].sync()
    assert scene.run(50, lambda: scene[3].serves)


def test_only_its_own_leader_may_order_a_follower() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].turn(events.Received(B, TransferOrder(leader.node.leader_ballot)))
    scene[3].turn(events.Received(A, TransferOrder(Ballot(0, A))))
    assert not scene[3].campaigns
    scene[3].turn(events.Received(A, TransferOrder(leader.node.leader_ballot)))
    assert scene[3].campaigns


def test_an_order_of_an_older_leadership_does_not_break_stickiness() -> None:
    scene = Scene()
    first = scene.elect(1).node.leader_ballot
    scene.settle()
    scene.elect(2)
    scene.settle()
    promised = scene[3].node.promised
    scene[3].turn(events.Received(A, Prepare(Ballot(promised.term + 1, A), first)))
    assert scene[3].node.promised == promised
    assert scene.messages(PrepareRefused, 3)


def test_a_leader_whose_clock_is_outvoted_hands_over() -> None:
    scene = Scene()
    scene[1].skew_us = 60_000 * MS
    leader = scene.elect(1)
    scene.run(200)
    leader.submit(1)
    assert scene.run(500, lambda: scene.leader is not None and scene.leader is not leader)
    assert any("clock differs" in line for line in leader.tells)
