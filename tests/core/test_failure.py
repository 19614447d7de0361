"""Is the leader gone, or am I slow?"""

from __future__ import annotations

from scene import MS, Scene

from distinv.config import Timing
from distinv.core import events
from distinv.core.failure import FailureDetector, LocalHealth
from distinv.entry import NodeId

TIMING = Timing()
FLOOR, CEILING = TIMING.suspect_floor_us, TIMING.suspect_ceiling_us


def detector() -> tuple[FailureDetector, LocalHealth]:
    health = LocalHealth(TIMING)
    return FailureDetector(TIMING, health), health


def hear_every(each: FailureDetector, interval_us: int, times: int = 100) -> int:
    for number in range(times):
        each.heard(number * interval_us)
    return (times - 1) * interval_us


def test_nobody_was_heard_yet() -> None:
    each, _ = detector()
    assert not each.hears(0)
    assert each.deadline() is None


def test_a_steady_leader_is_missed_after_the_floor() -> None:
    each, _ = detector()
    last = hear_every(each, TIMING.heartbeat_us)
    assert each.hears(last + FLOOR - 1)
    assert not each.hears(last + FLOOR)


def test_patience_follows_how_often_the_leader_is_heard() -> None:
    each, _ = detector()
    last = hear_every(each, 200 * MS)
    assert each.hears(last + 500 * MS)
    assert not each.hears(last + 3 * 200 * MS)


def test_patience_ends_at_the_ceiling() -> None:
    each, _ = detector()
    last = hear_every(each, 10 * CEILING)
    assert each.deadline() == last + CEILING


def test_a_new_leader_begins_with_a_clean_slate() -> None:
    each, _ = detector()
    hear_every(each, CEILING)
    each.reset()
    each.heard(0)
    assert each.deadline() == FLOOR


def test_a_refused_connection_counts_until_the_next_heartbeat() -> None:
    each, _ = detector()
    each.heard(0)
    each.refused_at = 10 * MS
    assert not each.hears(10 * MS)
    each.heard(11 * MS)
    assert each.hears(12 * MS)


def test_only_the_leaders_own_end_is_the_leaders_end() -> None:
    scene = Scene()
    scene.elect(1)
    scene.settle()
    follower = scene[3]
    follower.turn(events.PeerRefused(NodeId(2)))
    assert follower.node.hears_leader()
    follower.turn(events.PeerRefused(NodeId(1)))
    assert not follower.node.hears_leader()


def test_own_lateness_widens_the_patience_and_wears_off() -> None:
    each, health = detector()
    last = hear_every(each, TIMING.heartbeat_us)
    now = last
    for _ in range(10):
        now += 100 * MS
        assert health.observe(now - 60 * MS, now) == 60 * MS
    assert each.deadline() == last + 3 * FLOOR
    for _ in range(10):
        now += CEILING + 1
        assert health.observe(now, now) == 0
    assert each.deadline() == last + FLOOR


def test_being_a_little_late_is_no_reason() -> None:
    _, health = detector()
    assert health.observe(0, TIMING.heartbeat_us) == 0
    assert health.score == 0


def test_own_sleep_is_no_silence_of_the_leader() -> None:
    each, _ = detector()
    each.heard(0)
    slept = 5_000 * MS
    each.excuse(slept, slept + 100 * MS)
    assert each.hears(slept + 100 * MS)
    assert not each.hears(slept + FLOOR)


def test_an_excuse_reaches_to_the_present_only() -> None:
    each, _ = detector()
    each.heard(100 * MS)
    each.excuse(5_000 * MS, 200 * MS)
    assert each.last_heard == 200 * MS
