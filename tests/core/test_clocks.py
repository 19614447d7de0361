"""Whose clock may stamp the log?"""

from __future__ import annotations

from scene import MS

from distinv.core.clocks import Clocks
from distinv.entry import NodeId

A, B, C, D = (NodeId(number) for number in (1, 2, 3, 4))
SETS = [(A, B, C)]
SKEW = 5_000 * MS


def clocks(**offsets: int) -> Clocks:
    found = Clocks(A, SKEW)
    for name, offset in offsets.items():
        found.observe({"b": B, "c": C, "d": D}[name], 10**15 + offset, 10**15)
    return found


def test_a_clock_alone_is_not_trusted() -> None:
    assert not clocks().trusted(SETS)
    assert not clocks().outvoted(SETS)
    assert clocks().trusted([(A,)]), "unless it is all there is"
    assert not clocks().trusted([])


def test_a_majority_near_each_other_is_trusted() -> None:
    found = clocks(b=SKEW)
    assert found.trusted(SETS)
    assert found.differing(SETS) == ()


def test_one_that_differs_is_named_and_does_not_stop_the_stamps() -> None:
    found = clocks(b=1, c=-SKEW - 1)
    assert found.trusted(SETS)
    assert found.differing(SETS) == (C,)


def test_a_silent_one_is_no_reason_to_believe_the_own_clock() -> None:
    """The third had not been heard yet: one promise that differed was "fewer than a majority", and
    a new leader whose clock was ten years ahead stamped its first batch (schedule
    clock-ten-years-ahead, seed 34)."""
    found = clocks(b=-2 * SKEW)
    assert not found.outvoted(SETS)
    assert not found.trusted(SETS)
    found.observe(C, 0, 0)
    assert found.trusted(SETS), "now two of three say so"


def test_a_majority_that_differs_is_right() -> None:
    found = clocks(b=SKEW + 1, c=SKEW + 2)
    assert found.outvoted(SETS)
    assert not found.trusted(SETS)
    assert found.agree_with_majority(B, SETS)
    assert found.agree_with_majority(C, SETS)
    assert not found.agree_with_majority(A, SETS)


def test_three_clocks_of_three_minds_elect_nobody() -> None:
    found = clocks(b=-2 * SKEW, c=2 * SKEW)
    assert found.outvoted(SETS)
    assert not any(found.agree_with_majority(node, SETS) for node in (A, B, C))


def test_a_majority_of_all_voters_and_not_of_those_who_spoke() -> None:
    five = [(A, B, C, D, NodeId(5))]
    assert not clocks(b=0).trusted(five)
    assert clocks(b=0, c=0).trusted(five)
    assert not clocks(b=2 * SKEW, c=2 * SKEW).outvoted(five), "two of five"


def test_both_sets_of_a_change_must_trust() -> None:
    found = clocks(b=0)
    assert found.trusted([(A, B, C), (A, B, D)])
    assert not found.trusted([(A, B, C), (A, C, D)])


def test_a_stranger_to_the_set_has_no_say() -> None:
    assert clocks(b=0, d=3 * SKEW).differing(SETS) == ()


def test_the_last_observation_counts() -> None:
    found = clocks(b=2 * SKEW)
    found.observe(B, 1_000, 1_000)
    assert found.differing(SETS) == ()
