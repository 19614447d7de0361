"""A candidate's way: pre-vote, prepare, synchronise; and what happens when others are on theirs."""

from __future__ import annotations

from typing import Any

import pytest
from scene import MS, Scene, Server, log_of

from distinv.config import Limits
from distinv.core import events
from distinv.core.candidate import Candidate, Stage
from distinv.entry import NO_BALLOT, ORIGIN, TERM_JUMP_MAX, Ballot, NodeId, Position
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


def asking_alone(count: int = 5, promised: dict[int, Ballot] | None = None) -> Scene:
    """Server 1 asks for pre-votes, and what the others say is for the test to say."""
    scene = Scene(count, promised=promised)
    scene.isolate(1)
    scene[1].node.become_candidate("the scene wants it")
    scene[1].turn()
    return scene


def pre_vote(scene: Scene, source: int, granted: bool) -> None:
    number = scene.messages(PreVote, 1)[0].number
    reply = PreVoteReply(number, granted, Ballot(0, A), 0)
    scene[1].turn(events.Received(NodeId(source), reply))
    scene.run(1)


def test_a_pre_vote_that_comes_twice_counts_once() -> None:
    scene = asking_alone()
    pre_vote(scene, 2, True)
    pre_vote(scene, 2, True)
    assert scene.messages(Prepare, 1) == []
    role = scene[1].node.role
    assert isinstance(role, Candidate)
    assert role._granted == [A, B], "nor does it fill a list"
    pre_vote(scene, 3, True)
    assert scene.messages(Prepare, 1)


def test_who_said_no_and_then_yes_does_not_count_among_those_against() -> None:
    """It lost sight of the leader between two questions."""
    scene = asking_alone()
    for source, granted in ((2, False), (2, True), (3, False), (4, False)):
        pre_vote(scene, source, granted)
        assert scene[1].campaigns, "three of five may still agree"
    pre_vote(scene, 5, True)
    assert scene.messages(Prepare, 1)


def test_a_late_refusal_of_the_own_leadership_is_prepared_above() -> None:
    """It led in ballot 3; somebody promised 9 and said so only now."""
    scene = asking_alone(3, dict.fromkeys(THREE, Ballot(3, A)))
    scene[1].turn(events.Received(B, BallotRefused(Ballot(3, A), Ballot(9, C), 0)))
    pre_vote(scene, 2, True)
    assert scene.messages(Prepare, 1)[0].ballot == Ballot(10, A)


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
    scene[2].turn(events.Received(A, Prepare(Ballot(1, A), Ballot(0, A), 1)))
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert not scene[2].campaigns
    scene.run(399)
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert not scene[2].campaigns
    scene.run(2)
    scene[2].turn(events.Received(C, NominateHint("scene")))
    assert scene[2].campaigns


def after_four_campaigns(scene: Scene) -> Server:
    """A server that has promised four times in vain, and gives the last one long."""
    scene.isolate(3)
    for term in (1, 2, 3, 4):
        scene[3].turn(events.Received(A, Prepare(Ballot(term, A), NO_BALLOT, 1)))
    assert scene.now + 2 * scene.timing.watchdog_us < scene[3].node.campaigns.quiet_until
    return scene[3]


def test_the_watchdog_leaves_another_campaign_its_time() -> None:
    scene = Scene()
    server = after_four_campaigns(scene)
    quiet_until = server.node.campaigns.quiet_until
    far = Ballot(5 + TERM_JUMP_MAX, B)
    server.turn(events.Received(B, Heartbeat(far, 1, 1, 0)))  # starts the watchdog again
    scene.run((quiet_until - scene.now) // MS)
    assert scene.messages(PreVote, 3) == []
    assert scene.run(4_000, lambda: server.campaigns)


def test_who_followed_a_leader_waits_for_no_campaign_of_before() -> None:
    """It once waited for the rest of the time, up to 3.2 s, that the leader's campaign had."""
    scene = Scene()
    server = after_four_campaigns(scene)
    quiet_until = server.node.campaigns.quiet_until
    server.turn(events.Received(A, Heartbeat(Ballot(4, A), 1, 1, 0)))
    assert scene.run(3_000, lambda: server.campaigns)
    assert scene.now < quiet_until


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


def test_refusals_of_another_ballot_end_no_candidacy() -> None:
    scene = Scene()
    scene.isolate(1)
    campaign(scene, 1, Ballot(1, B))
    scene.run(5)
    for source in (B, C):
        scene[1].turn(events.Received(source, PrepareRefused(Ballot(0, A), Ballot(9, C), 0)))
    assert scene[1].campaigns


def test_promises_of_others_make_no_leader_before_the_own_is_durable() -> None:
    scene = Scene()
    scene.isolate(1)
    scene[1].stalled = True
    campaign(scene, 1, Ballot(1, B))
    for source in (B, C):
        scene[1].turn(events.Received(source, Promise(Ballot(1, A), ORIGIN, 0, 0, ())))
    assert not scene[1].leads
    scene[1].stalled = False
    scene[1].sync()
    assert scene[1].leads


def test_clocks_of_voters_only_are_remembered() -> None:
    """Whoever has the key may answer, under ever new ids."""
    scene = Scene()
    scene.isolate(1)
    campaign(scene, 1, Ballot(1, B))
    scene.run(5)
    for source in (NodeId(77), B):
        promise = Promise(Ballot(1, A), ORIGIN, 0, scene[1].node.clock_us, ())
        scene[1].turn(events.Received(source, promise))
    assert list(scene[1].node.clocks._offsets) == [A, B]


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


def pulling_from_one_of_two() -> tuple[Scene, int, int, PullReply]:
    """Server 1 pulls from one server, another one could help; and how either may say that it
    holds the log no more."""
    five = (1, 2, 3, 4, 5)
    behind, ahead = log_of(five, (1, 1)), log_of(five, *[(2, 2)] * 30)
    logs = {1: behind, 2: ahead, 3: ahead, 4: behind, 5: behind}
    scene = Scene(5, logs=logs, promised=dict.fromkeys(five, Ballot(2, B)))
    scene.isolate(4)
    scene.isolate(5)
    campaign(scene, 1)
    assert scene.run(100, lambda: stage_of(scene) is Stage.SYNCHRONISE)
    source = next(to for _, to, m in scene.sent if isinstance(m, Pull))
    gone = PullReply(scene[1].node.promised, behind[0].position, (), False, 0, 0)
    return scene, source, 5 - source, gone


def test_who_else_promised_the_same_place_helps_out() -> None:
    """Positions are promised, bodies pulled: from anybody who holds that very place."""
    scene, source, other, gone = pulling_from_one_of_two()
    scene[1].turn(events.Received(NodeId(source), gone))
    assert [to for _, to, message in scene.sent if isinstance(message, Pull)][-1] == other
    assert scene.run(200, lambda: scene[1].leads)
    assert scene[1].node.log.ballot_at(31) == Ballot(2, B)


def test_who_says_twice_that_it_holds_nothing_takes_nobody_else_along() -> None:
    scene, source, _, gone = pulling_from_one_of_two()
    for _ in range(2):
        scene[1].turn(events.Received(NodeId(source), gone))
        assert stage_of(scene) is Stage.SYNCHRONISE
    assert scene.run(200, lambda: scene[1].leads)


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
    scene[1].turn(events.Received(B, PullReply(ballot, BEHIND[-1].position, (), False, 0, 0)))
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
    reply = PullReply(ballot, last, tuple(AHEAD[5:9]), True, 0, 0)
    scene[1].turn(events.Received(B, reply))
    assert scene[1].node.log.last == last
    scene.release(pulls)
    assert scene.run(200, lambda: scene[1].leads)


def synchronising() -> tuple[Scene, Ballot, Position]:
    """Server 1 pulls from server 2, in this ballot, what comes after this position."""
    scene = Scene(logs={1: BEHIND, 2: AHEAD, 3: BEHIND}, promised=PROMISED)
    scene.isolate(3)
    pulls = scene.hold(lambda message: isinstance(message, Pull))
    campaign(scene, 1)
    assert scene.run(100, lambda: bool(pulls))
    return scene, scene[1].node.promised, scene[1].node.log.last


def test_answers_to_the_pull_of_an_earlier_candidacy_say_nothing() -> None:
    scene, ballot, last = synchronising()
    earlier = Ballot(ballot.term - 1, A)
    scene[1].turn(events.Received(B, PullReply(earlier, last, (), False, 0, 0)))
    assert stage_of(scene) is Stage.SYNCHRONISE
    scene[1].turn(events.Received(B, PullReply(ballot, last, (), False, 0, 0)))
    assert not scene[1].campaigns


def test_a_pulled_log_that_ends_elsewhere_than_promised_makes_no_leader() -> None:
    """Its source truncated, meanwhile, what it had promised, and has an older entry there."""
    scene, ballot, last = synchronising()
    other = log_of(THREE, (1, 1), *[(1, 3)] * 30)
    scene[1].turn(events.Received(B, PullReply(ballot, last, tuple(other[2:]), True, 0, 0)))
    assert scene[1].node.log.last == other[-1].position
    assert not scene[1].leads
    assert not scene[1].campaigns


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
