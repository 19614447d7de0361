"""Who should vote: odd, at most five, and nobody is thrown out lightly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from distinv.core.autopilot import Member, best_voters
from distinv.entry import NodeId

VOTER, GONE, LEAVING = "voter", "gone", "leaving"
READY, FRESH, LEARNS = "ready", "fresh", "learns for good"
_STATES = {
    VOTER: Member(NodeId(0), votes=True),
    GONE: Member(NodeId(0), votes=True, gone=True),
    LEAVING: Member(NodeId(0), votes=True, leaving=True),
    READY: Member(NodeId(0), votes=False, ready=True),
    FRESH: Member(NodeId(0), votes=False, ready=False),
    LEARNS: Member(NodeId(0), votes=False, ready=True, leaving=True),
}


def members(*states: str) -> list[Member]:
    """Servers 1, 2, …, in these states; server 1 leads."""
    found = []
    for number, state in enumerate(states, 1):
        one = _STATES[state]
        found.append(Member(NodeId(number), one.votes, one.gone, one.ready, one.leaving))
    return found


def best(*states: str) -> tuple[int, ...]:
    return best_voters(members(*states), NodeId(1), voters_max=5, voters_min=3)


@pytest.mark.parametrize(
    ("states", "voters"),
    [
        ([VOTER], (1,)),
        ([VOTER, READY], (1,)),
        ([VOTER, READY, READY], (1, 2, 3)),
        ([VOTER, READY, FRESH], (1,)),
        ([VOTER, VOTER, VOTER, READY], (1, 2, 3)),
        ([VOTER, VOTER, VOTER, READY, READY], (1, 2, 3, 4, 5)),
        ([VOTER, VOTER, VOTER, VOTER, VOTER, READY, READY], (1, 2, 3, 4, 5)),
        ([VOTER, READY, READY, READY, READY], (1, 2, 3, 4, 5)),
    ],
)
def test_it_grows_by_two(states: Sequence[str], voters: tuple[int, ...]) -> None:
    assert best(*states) == voters


@pytest.mark.parametrize(
    ("states", "voters"),
    [
        ([VOTER, VOTER, GONE], (1, 2, 3)),
        ([VOTER, GONE, GONE], (1, 2, 3)),
        ([VOTER, VOTER, GONE, READY], (1, 2, 4)),
        ([VOTER, VOTER, GONE, FRESH], (1, 2, 3)),
        ([VOTER, VOTER, VOTER, VOTER, GONE], (1, 2, 3)),
        ([VOTER, VOTER, VOTER, GONE, GONE], (1, 2, 3)),
        ([VOTER, VOTER, VOTER, VOTER, GONE, READY], (1, 2, 3, 4, 6)),
    ],
)
def test_who_is_gone_is_replaced_or_let_go_but_three_stay(
    states: Sequence[str], voters: tuple[int, ...]
) -> None:
    assert best(*states) == voters


@pytest.mark.parametrize(
    ("states", "voters"),
    [
        ([VOTER, VOTER, LEAVING], (1,)),
        ([VOTER, VOTER, LEAVING, READY], (1, 2, 4)),
        ([LEAVING, VOTER, VOTER], (2,)),
        ([VOTER, VOTER, VOTER, VOTER, LEAVING], (1, 2, 3)),
        ([VOTER, LEARNS, READY], (1,)),
        ([LEAVING], (1,)),
    ],
)
def test_who_leaves_has_no_vote_whatever_remains(
    states: Sequence[str], voters: tuple[int, ...]
) -> None:
    """But for the last one: it would be the cluster's end."""
    assert best(*states) == voters


@given(st.lists(st.sampled_from(sorted(_STATES)), max_size=10))
def test_whatever_it_is_shown(others: list[str]) -> None:
    shown = members(VOTER, *others)
    votes = [each.node for each in shown if each.votes]
    assume(len(votes) % 2 == 1 and len(votes) <= 5)
    chosen = best_voters(shown, NodeId(1), voters_max=5, voters_min=3)
    if list(chosen) == votes:
        return
    assert len(chosen) % 2 == 1
    assert len(chosen) <= 5
    assert 1 in chosen
    newcomers = [each for each in shown if each.node in chosen and not each.votes]
    assert all(each.ready and not each.leaving for each in newcomers)
    if not any(each.leaving for each in shown if each.votes):
        assert len(chosen) >= min(3, len(votes))
    # What it proposes is what it would keep.
    then = [
        Member(each.node, each.node in chosen, each.gone, each.ready, each.leaving)
        for each in shown
        if each.node in chosen or not each.gone  # of the silent only voters are looked at
    ]
    assert best_voters(then, NodeId(1), voters_max=5, voters_min=3) == chosen
