"""Reads without writing: rounds of a leader, questions of a follower, and who may answer."""

from __future__ import annotations

from scene import MS, Scene

from distinv.core import events
from distinv.core.reads import ReadQuestions, ReadRounds
from distinv.entry import Ballot, NodeId
from distinv.wire.messages import Heartbeat, HeartbeatAck, ReadIndex, ReadIndexReply

ME, B, C = NodeId(1), NodeId(2), NodeId(3)
SETS = [(ME, B, C)]
GAP = 10 * MS


# --- a leader's rounds ------------------------------------------------------------------------


def test_a_read_that_comes_during_a_round_waits_for_the_next() -> None:
    rounds = ReadRounds()
    rounds.add(1, commit=5)
    assert rounds.next_round(0, GAP)
    assert rounds.round == 1
    rounds.add(2, commit=6)
    assert not rounds.next_round(1, GAP), "one at a time"
    assert rounds.confirm(SETS, {B: 1}, ME) == ((1,), 5)
    assert rounds.confirm(SETS, {B: 1, C: 1}, ME) is None, "an older round proves nothing"
    assert rounds.next_round(2, GAP)
    assert rounds.confirm(SETS, {B: 2}, ME) == ((2,), 6)


def test_one_round_serves_all_that_wait_at_the_highest_index() -> None:
    rounds = ReadRounds()
    for ticket, commit in ((1, 5), (2, 5), (3, 9)):
        rounds.add(ticket, commit)
    assert rounds.next_round(0, GAP)
    assert rounds.confirm(SETS, {C: 1}, ME) == ((1, 2, 3), 9)


def test_too_few_confirm_nothing() -> None:
    rounds = ReadRounds()
    rounds.add(1, commit=5)
    rounds.next_round(0, GAP)
    assert rounds.confirm(SETS, {}, ME) is None
    assert rounds.confirm([(ME, B, C), (ME, NodeId(4), NodeId(5))], {B: 1}, ME) is None
    assert rounds.abandon() == (1,)
    assert rounds.confirm(SETS, {B: 1}, ME) is None


def test_an_overdue_round_is_asked_again_and_takes_later_reads_along() -> None:
    rounds = ReadRounds()
    rounds.add(1, commit=5)
    assert rounds.next_round(0, GAP)
    assert rounds.deadline(GAP) == GAP
    assert rounds.next_round(GAP, GAP)
    assert rounds.round == 1, "the same question"
    rounds.add(2, commit=6)
    assert rounds.next_round(2 * GAP, GAP)
    assert rounds.round == 2
    assert rounds.confirm(SETS, {B: 2}, ME) == ((1, 2), 6)


def test_a_read_that_just_came_does_not_look_like_a_late_turn() -> None:
    """An old date here made a leader believe it had slept, and excuse who was silent."""
    rounds = ReadRounds()
    rounds.add(1, commit=5)
    assert rounds.deadline(GAP) is None, "its round starts as the turn ends"


# --- a follower's questions -------------------------------------------------------------------


def test_an_answer_serves_those_that_waited_when_the_question_was_sent() -> None:
    questions = ReadQuestions()
    questions.add(1, 0)
    assert questions.next_question(0, GAP) == 1
    questions.add(2, 0)
    assert questions.next_question(1, GAP) is None
    assert questions.answered(1, 0) == (1,)
    assert questions.next_question(2, GAP) == 2
    assert questions.answered(2, 0) == (2,)
    assert not questions.waiting


def test_an_older_answer_serves_the_older_reads_only() -> None:
    questions = ReadQuestions()
    questions.add(1, 0)
    questions.next_question(0, GAP)
    questions.add(2, 0)
    assert questions.next_question(GAP, GAP) == 2
    assert questions.answered(1, 0) == (1,)
    assert questions.answered(1, 0) == (), "answered twice"
    assert questions.answered(2, 0) == (2,)


def test_a_later_answer_makes_the_earlier_ones_useless() -> None:
    questions = ReadQuestions()
    questions.add(1, 0)
    questions.next_question(0, GAP)
    questions.next_question(GAP, GAP)
    assert questions.answered(2, 0) == (1,)
    questions.add(2, 0)
    assert questions.answered(1, 0) == ()
    assert questions.waiting


def test_a_number_is_never_used_again() -> None:
    questions = ReadQuestions()
    questions.add(1, 0)
    assert questions.next_question(0, GAP) == 1
    assert questions.abandon() == (1,)
    questions.add(2, 0)
    assert questions.next_question(GAP, GAP) == 2
    assert questions.answered(1, 0) == (), "an answer to a question of before"
    assert questions.waiting


def test_questions_that_nobody_answers_are_forgotten_the_oldest_first() -> None:
    questions = ReadQuestions()
    questions.add(1, 0)
    for number in range(1, 18):
        assert questions.next_question(number * 10_000 * MS, GAP) == number
    assert len(questions._asked) == 16
    assert questions.answered(1, 0) == ()
    assert questions.answered(2, 0) == (1,)


def test_slow_answers_are_waited_for() -> None:
    """Sixteen questions every 10 ms used to forget each one before its answer could arrive."""
    questions, delay = ReadQuestions(), 500 * MS
    questions.add(1, 0)
    asked: dict[int, int] = {}
    for now in range(0, 2_000 * MS, MS):
        if (number := questions.next_question(now, GAP)) is not None:
            asked[number] = now
        for number, then in asked.items():
            if then + delay == now and questions.answered(number, 0):
                assert now == delay
                return
    raise AssertionError("no answer was ever in time")


def test_many_reads_cost_each_a_moment() -> None:
    questions = ReadQuestions()
    for ticket in range(20_000):
        questions.add(ticket, 0)
    number = questions.next_question(0, GAP)
    assert number is not None
    assert questions.answered(number, 0) == tuple(range(20_000))


# --- scenes -----------------------------------------------------------------------------------


def test_a_leader_and_its_followers_serve_reads() -> None:
    scene = Scene()
    leader = scene.elect(2)
    leader.submit(1)
    scene.settle()
    for server in scene.servers.values():
        server.read(server.id)
    assert scene.run(50, lambda: all(server.ready for server in scene.servers.values()))
    assert all(
        index == leader.applied for s in scene.servers.values() for index in s.ready.values()
    )


def test_a_sole_voter_needs_nobody() -> None:
    scene = Scene(1)
    leader = scene.elect(1)
    leader.read(1)
    assert leader.ready == {1: 2}


def test_no_read_before_the_no_op_of_the_own_ballot_is_committed() -> None:
    scene = Scene()
    server = scene[1]
    scene.lose = lambda source, to, message: isinstance(message, HeartbeatAck)
    server.node.become_candidate("the scene wants it")
    server.turn()
    assert scene.run(100, lambda: server.leads)
    server.read(1)
    assert server.failed == [1]
    scene[2].turn()
    scene.run(10)
    if scene[2].node.leader == 1 and not server.serves:
        scene[2].read(2)
        scene.run(10)
        assert 2 not in scene[2].ready


def test_a_deposed_leader_serves_no_read() -> None:
    """The trap: it still believes in itself, and others have written meanwhile."""
    scene = Scene()
    old = scene.elect(1)
    scene.settle()
    scene.isolate(1)
    new = scene.elect(2)
    new.submit(1)
    scene.run(20)
    old.read(1)
    scene.run(300)
    assert old.leads, "it has not noticed"
    assert old.ready == {}
    scene.run(1_000)
    assert not old.leads
    assert old.failed == [1]


def test_acknowledgements_of_before_the_read_confirm_nothing() -> None:
    """Ballots alone would do: those under way were sent before the others turned away."""
    scene = Scene()
    old = scene.elect(1)
    scene.settle()
    held = scene.hold(lambda message: isinstance(message, HeartbeatAck))
    scene.run(60)
    assert held
    scene.isolate(1)
    new = scene.elect(2)
    new.submit(1)
    scene.run(20)
    old.read(1)
    scene.release(held)
    assert old.leads
    assert old.ready == {}


def test_a_late_answer_serves_no_later_read() -> None:
    """Storm 154, found before numbers went on for life: the follower lost its leader, followed
    it again in the same ballot, and asked a first question again."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    follower = scene[3]
    held = scene.hold(lambda message: isinstance(message, ReadIndexReply))
    follower.read(1)
    scene.run(5)
    late = held[:1]
    assert late
    scene.cut((1, 3))
    assert scene.run(2_000, lambda: follower.node.leader is None)
    assert follower.failed == [1]
    scene.heal()
    assert scene.run(500, lambda: follower.node.leader == 1)
    assert leader.serves, "all in the one ballot"
    leader.submit(7)
    scene.run(20)
    follower.read(2)
    scene.run(2)
    scene.release(late)
    assert follower.ready == {}


def test_a_leader_that_does_not_serve_says_so() -> None:
    scene = Scene()
    scene.elect(1)
    scene.settle()
    follower = scene[2]
    scene[1].node.role.serving = False  # type: ignore[union-attr]
    follower.read(1)
    scene.run(20)
    assert follower.failed == [1]


def test_who_hears_no_leader_fails_reads_at_once() -> None:
    scene = Scene()
    scene.isolate(1)
    scene[1].read(1)
    assert scene[1].failed == [1]
    scene[1].node.become_candidate("the scene wants it")
    scene[1].read(2)
    assert scene[1].failed == [1, 2]
    assert scene.messages(ReadIndex) == []


def test_an_answer_of_another_leadership_serves_nothing() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.cut((1, 2))
    follower, ballot = scene[2], leader.node.leader_ballot
    follower.read(1)
    (question,) = scene.messages(ReadIndex, 2)
    earlier = Ballot(ballot.term - 1, ME)
    follower.turn(events.Received(ME, ReadIndexReply(question.number, earlier, 2)))
    assert follower.ready == {}
    follower.turn(events.Received(ME, ReadIndexReply(question.number, ballot, 2)))
    assert follower.ready == {1: 2}


def test_a_refusal_that_comes_twice_fails_each_read_once() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.cut((1, 2))
    follower = scene[2]
    follower.read(1)
    (question,) = scene.messages(ReadIndex, 2)
    refusal = events.Received(ME, ReadIndexReply(question.number, leader.node.leader_ballot, -1))
    first, second = (follower.node.step(refusal, scene.now) for _ in range(2))
    assert first == [events.ReadFailed((1,), "no_leader")]
    assert second == []


def test_reads_while_idle_cost_one_round_each_and_then_nothing() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.run(200)
    before = len(scene.messages(Heartbeat, 1, 2))
    leader.read(1)
    scene.run(40)
    assert leader.ready
    assert len(scene.messages(Heartbeat, 1, 2)) - before <= 2


def test_a_followers_question_after_a_pause_is_no_sign_of_lateness() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene.run(1_000)
    leader.turn(events.Received(B, ReadIndex(1)), events.TimeReached())
    assert leader.node.health.score == 0


def test_a_mute_follower_gives_its_reads_back() -> None:
    """It hears the leader, which does not hear it: a client once asked it in vain for ten seconds
    (a simulated run with a server that is mute for good)."""
    scene = Scene()
    scene.elect(1)
    scene.settle()
    scene.cut((2, 1))
    scene[2].read(1)
    scene.run(200)
    scene[2].read(2)
    assert scene.run(200, lambda: scene[2].failed == [1, 2])
    scene.heal()
    scene[2].read(3)
    assert scene.run(50, lambda: 3 in scene[2].ready)
    assert scene[2].node.leader == 1


def test_a_follower_whose_disk_is_dead_takes_no_reads() -> None:
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[2].stalled = True
    leader.submit(1)
    scene.run(500)
    scene[2].read(1)
    scene.run(1_000)
    assert not scene[2].failed, "it is slow, perhaps"
    scene[2].read(2)
    assert scene[2].failed == [2]
    assert scene[2].node.leader == 1
