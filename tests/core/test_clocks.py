"""Whose clock may stamp the log?"""

from __future__ import annotations

from scene import MS, Scene
from scene_server import EPOCH_US

from distinv.core.clocks import Clocks
from distinv.entry import NodeId

A, B, C, D = (NodeId(number) for number in (1, 2, 3, 4))
SETS = [(A, B, C)]
SKEW = 5_000 * MS
EPOCH = 10**15


def clocks(**offsets: int) -> Clocks:
    found = Clocks(A, SKEW)
    found.own_offset_us = EPOCH
    for name, offset in offsets.items():
        found.observe({"b": B, "c": C, "d": D}[name], EPOCH + 77 + offset, 77)
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
    found.observe(C, EPOCH, 0)
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
    found.observe(B, EPOCH + 1_000, 1_000)
    assert found.differing(SETS) == ()


def test_a_clock_that_is_set_anew_takes_nobody_with_it() -> None:
    """What was known of the others was known by the own clock: it was set an hour ahead, all the
    others seemed to be with it, and the next batch took the log's time there."""
    found = clocks(b=0, c=0)
    found.own_offset_us = EPOCH + 3_600_000 * MS
    assert not found.trusted(SETS)
    assert found.outvoted(SETS)
    assert found.differing(SETS) == (B, C)
    assert found.agree_with_majority(B, SETS)
    found.own_offset_us = EPOCH
    assert found.trusted(SETS), "and when it is set right, nothing has happened"


def test_a_campaign_knows_no_clock_of_before() -> None:
    found = clocks(b=0, c=0)
    found.begin()
    assert not found.trusted(SETS)
    assert found.own_offset_us == EPOCH


HOUR = 3_600_000 * MS


def log_time_us(scene: Scene) -> int:
    """Of the last committed entry, as it differs from the right time."""
    return scene.committed[-1].time_us - EPOCH_US - scene.now


def test_a_leader_whose_clock_jumps_stamps_nothing_by_it() -> None:
    """All three are there, and a command comes before anybody can say that the clock is wrong."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    leader.submit(1)
    scene.run(200)
    leader.skew_us = 24 * 3650 * HOUR
    leader.submit(2)
    scene.run(300)
    assert abs(log_time_us(scene)) < SKEW
    leader.skew_us = 0
    scene.run(60_000)
    scene.settle().submit(3)
    scene.run(500)
    assert scene.numbers() == [1, 2, 3]
    assert abs(log_time_us(scene)) < SKEW, "it goes on at once when the clock is right again"


def test_a_leader_whose_clock_jumps_is_not_believed_for_a_dead_servers_sake() -> None:
    """The dead one had its time when it lived; the other says what is right."""
    scene = Scene()
    leader = scene.elect(1)
    scene.settle()
    scene[3].crash()
    scene.run(60_000)
    leader.submit(1)
    scene.run(1_000)
    assert abs(log_time_us(scene)) < SKEW, "two that agree go on"
    before = scene.committed[-1].time_us
    leader.skew_us = HOUR
    for number in (2, 3, 4):
        scene.settle().submit(number)
        scene.run(1_000)
    assert scene.numbers() == [1, 2, 3, 4]
    assert scene.committed[-1].time_us == before, "either of two may be wrong: it stands still"
