"""Quorums, clocks and read rounds: arithmetic, against the obvious way to do it."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from distinv.core.clocks import Clocks
from distinv.core.quorum import can_win, is_quorum, majority, members, quorum_value
from distinv.core.reads import ReadQuestions, ReadRounds
from distinv.entry import NodeId

NODES = [NodeId(number) for number in range(1, 8)]
SKEW_US = 5_000_000

voter_sets = st.lists(
    st.lists(st.sampled_from(NODES), min_size=1, max_size=5, unique=True), min_size=1, max_size=2
)
somebody = st.lists(st.sampled_from(NODES), unique=True)


@given(st.integers(1, 9))
def test_any_two_majorities_share_a_voter(count: int) -> None:
    groups = list(combinations(range(count), majority(count)))
    assert all(set(one) & set(other) for one in groups for other in groups)


@given(voter_sets, somebody)
def test_a_quorum_is_a_majority_of_each_set(sets: list[list[NodeId]], who: list[NodeId]) -> None:
    obvious = all(2 * sum(node in who for node in voters) > len(voters) for voters in sets)
    assert is_quorum(sets, who) == obvious
    refused = [node for node in NODES if node not in who]
    assert can_win(sets, refused) == obvious


@given(voter_sets, st.dictionaries(st.sampled_from(NODES), st.integers(0, 20)))
def test_the_quorum_value_is_the_highest_that_a_quorum_reached(
    sets: list[list[NodeId]], reached: dict[NodeId, int]
) -> None:
    value = quorum_value(sets, reached)
    there = [node for node in NODES if reached.get(node, 0) >= value]
    beyond = [node for node in NODES if reached.get(node, 0) > value]
    assert is_quorum(sets, there)
    assert not is_quorum(sets, beyond)


def test_without_voters_there_is_no_quorum() -> None:
    assert not is_quorum([], NODES)
    assert not can_win([], [])
    assert quorum_value([], {NODES[0]: 5}) == 0
    assert members([[NODES[2], NODES[0]], [NODES[1], NODES[0]]]) == tuple(NODES[:3])


def clocks(*offsets_us: int) -> Clocks:
    found = Clocks(NODES[0], SKEW_US)
    for node, offset in zip(NODES[1:], offsets_us, strict=False):
        found.observe(node, 1_000_000_000 + offset, 1_000_000_000)
    return found


def test_no_stamp_before_a_majoritys_clocks_are_known() -> None:
    assert not clocks().trusted([NODES[:3]])
    assert clocks(0).trusted([NODES[:3]])
    assert not clocks(0).trusted([NODES[:5]])
    assert clocks().trusted([NODES[:1]]), "alone, there is nobody to ask"


def test_a_clock_is_outvoted_by_a_majority_of_all_voters_only() -> None:
    ten_years = 10 * 365 * 86_400 * 1_000_000
    assert clocks(ten_years, 0).trusted([NODES[:3]]), "one strange clock is the stranger's"
    wrong = clocks(ten_years, ten_years + 1_000)
    assert wrong.outvoted([NODES[:3]])
    assert not wrong.trusted([NODES[:3]])
    assert wrong.differing([NODES[:3]]) == (NODES[1], NODES[2])
    assert wrong.agree_with_majority(NODES[1], [NODES[:3]])
    assert not wrong.agree_with_majority(NODES[0], [NODES[:3]])


def test_a_read_is_confirmed_by_a_round_that_started_after_it_arrived() -> None:
    sets, rounds = [NODES[:3]], ReadRounds()
    rounds.add(1, commit=10)
    assert rounds.next_round(0, 100)
    first = rounds.round
    rounds.add(2, commit=12)  # the first round is under way already
    assert rounds.confirm(sets, {NODES[1]: first}, NODES[0]) == ((1,), 10)
    assert rounds.confirm(sets, {NODES[1]: first}, NODES[0]) is None
    assert rounds.next_round(1, 100)
    assert rounds.confirm(sets, {NODES[1]: rounds.round}, NODES[0]) == ((2,), 12)


def test_a_round_needs_a_quorum() -> None:
    sets, rounds = [NODES[:5]], ReadRounds()
    rounds.add(1, commit=3)
    rounds.next_round(0, 100)
    assert rounds.confirm(sets, {NODES[1]: rounds.round}, NODES[0]) is None
    both = {NODES[1]: rounds.round, NODES[2]: rounds.round}
    assert rounds.confirm(sets, both, NODES[0]) == ((1,), 3)


def test_an_answer_serves_only_the_reads_that_waited_when_its_question_was_sent() -> None:
    questions = ReadQuestions()
    questions.add(1)
    number = questions.next_question(0, 100)
    assert number is not None
    questions.add(2)
    assert questions.answered(number) == (1,)
    assert questions.answered(number) == ()
    later = questions.next_question(1, 100)
    assert later is not None
    assert questions.answered(later) == (2,)
    assert questions.abandon() == ()
