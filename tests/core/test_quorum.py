"""Counting votes: the arithmetic against brute force over all subsets."""

from __future__ import annotations

from itertools import chain, combinations

from hypothesis import given
from hypothesis import strategies as st

from distinv.core.quorum import can_win, is_quorum, majority, members, quorum_value
from distinv.entry import NodeId

NODES = [NodeId(number) for number in range(1, 7)]
some_nodes = st.lists(st.sampled_from(NODES), unique=True)
voter_sets = st.lists(
    st.lists(st.sampled_from(NODES), min_size=1, max_size=5, unique=True), min_size=1, max_size=2
)
values = st.dictionaries(st.sampled_from(NODES), st.integers(0, 5))


def subsets(nodes: list[NodeId]) -> list[tuple[NodeId, ...]]:
    sizes = range(len(nodes) + 1)
    return list(chain.from_iterable(combinations(nodes, size) for size in sizes))


def more_than_half(voters: list[NodeId], who: object) -> bool:
    return 2 * len(set(voters) & set(who)) > len(voters)  # type: ignore[call-overload]


@given(voter_sets, some_nodes)
def test_a_quorum_is_more_than_half_of_every_set(
    sets: list[list[NodeId]], who: list[NodeId]
) -> None:
    assert is_quorum(sets, who) == all(more_than_half(voters, who) for voters in sets)


@given(voter_sets)
def test_any_two_quorums_meet_in_every_set(sets: list[list[NodeId]]) -> None:
    quorums = [set(who) for who in subsets(NODES) if is_quorum(sets, who)]
    for one in quorums:
        for other in quorums:
            assert all(one & other & set(voters) for voters in sets)


@given(voter_sets, some_nodes)
def test_who_can_win_is_who_some_quorum_has_not_refused(
    sets: list[list[NodeId]], refused: list[NodeId]
) -> None:
    left = [node for node in NODES if node not in refused]
    assert can_win(sets, refused) == any(is_quorum(sets, who) for who in subsets(left))


@given(voter_sets, values)
def test_the_quorum_value_is_the_highest_that_a_quorum_has_reached(
    sets: list[list[NodeId]], value_of: dict[NodeId, int]
) -> None:
    reached = [
        value
        for value in range(6)
        if is_quorum(sets, [node for node in NODES if value_of.get(node, 0) >= value])
    ]
    assert quorum_value(sets, value_of) == max(reached)


def test_without_a_set_there_is_no_quorum() -> None:
    assert not is_quorum([], NODES)
    assert not can_win([], [])
    assert quorum_value([], {NODES[0]: 7}) == 0


def test_members_are_everybody_once_in_order() -> None:
    assert members([[NODES[3], NODES[1]], [NODES[1], NODES[0]]]) == (NODES[0], NODES[1], NODES[3])


def test_majorities_of_small_sets() -> None:
    assert [majority(count) for count in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
