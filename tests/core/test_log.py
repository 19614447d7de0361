"""The log of one server against a plain list, and how two logs find where they agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene import birth_entry, log_of

from distinv.config import Limits
from distinv.core.events import InvariantBroken
from distinv.core.log import Log, more_up_to_date
from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, EntryKind, NodeId, Position, make_entry

CACHE = 1 << 20


def entry_after(previous: Position, ballot: Ballot, payload: bytes) -> Entry:
    return make_entry(previous, ballot, 0, EntryKind.NOOP, payload)


def log_from(entries: list[Entry], cache_bytes: int = CACHE) -> Log:
    return Log(entries, cache_bytes=cache_bytes)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2)),
        st.tuples(st.just("truncate"), st.integers(0, 12)),
    ),
    max_size=30,
)


@given(steps)
def test_a_log_is_a_list_that_only_its_end_changes(script: list[tuple[str, int]]) -> None:
    log, model, term = log_from([]), list[Entry](), 1
    for step, (kind, number) in enumerate(script):
        if kind == "append":
            term += number
            entry = entry_after(log.last, Ballot(term, NodeId(1)), str(step).encode())
            log.append(entry)
            model.append(entry)
        else:
            kept = min(number, len(model))
            log.truncate(kept)
            del model[kept:]
        assert log.last_index == len(model)
        assert [log.position(index + 1) for index in range(len(model))] == [
            entry.position for entry in model
        ]
        assert log.last == (model[-1].position if model else ORIGIN)
        assert [log.body(index + 1) for index in range(len(model))] == model
        assert log.position(len(model) + 1) is None
        assert all(log.holds(entry.position) for entry in model)


def test_what_does_not_follow_is_a_bug_and_not_an_entry() -> None:
    log = log_from(log_of([1], (2, 1)))
    with pytest.raises(InvariantBroken, match="does not follow"):
        log.append(entry_after(Position(5, NO_BALLOT, b""), Ballot(3, NodeId(1)), b""))
    with pytest.raises(InvariantBroken, match="does not follow"):
        log.append(entry_after(log.last, Ballot(1, NodeId(1)), b""))
    with pytest.raises(InvariantBroken, match="cannot truncate"):
        log.truncate(3)


def test_bodies_of_applied_entries_leave_the_cache_but_those_of_voters() -> None:
    entries = [birth_entry([1])]
    for _ in range(10):
        entries.append(entry_after(entries[-1].position, Ballot(1, NodeId(1)), bytes(100)))
    log = log_from(entries, cache_bytes=300)
    log.evict_bodies(0)
    assert log.body(2) is not None, "not applied yet"
    log.evict_bodies(11)
    assert log.body(1) is not None, "a voter set"
    assert log.body(2) is None
    assert log.body(11) is not None
    assert log.bodies(2, 11, 10_000) is None, "has to be read from storage"
    assert log.bodies(10, 11, 10_000) == entries[9:]
    log.truncate(9)
    log.append(entry_after(log.last, Ballot(2, NodeId(1)), b"other"))
    assert log.body(10) is not None


def test_a_range_stops_at_its_size_but_has_one_entry() -> None:
    log = log_from(log_of([1], *[(1, 1)] * 5))
    assert log.bodies(2, 6, 0) == [log.body(2)]
    assert log.bodies(5, 4, 100) == []


@pytest.mark.parametrize(
    ("payload_bytes", "keep_entries", "kept"), [(100, 10, 10), (10_000, 1_000, 4), (0, 12, 12)]
)
def test_the_log_is_bounded_in_entries_and_in_bytes(
    payload_bytes: int, keep_entries: int, kept: int
) -> None:
    """The story: with batches of a megabyte it grew to gigabytes, since only entries counted."""
    limits = Limits(log_keep_entries=keep_entries, log_keep_bytes=40_000)
    log, longest, compacted = log_from(log_of([1])), 0, 0
    for _ in range(200):
        log.append(entry_after(log.last, Ballot(2, NodeId(1)), bytes(payload_bytes)))
        if log.dispensable_now(limits):
            log.compact(
                log.base_at(log.dispensable(limits.log_keep_entries, limits.log_keep_bytes))
            )
            compacted += 1
            assert log.last_index - log.base.index == kept
        longest = max(longest, log.last_index - log.base.index)
    assert compacted > 1
    assert kept < longest <= kept + kept // 4 + 2


logs = st.lists(st.integers(0, 3), max_size=12).map(
    lambda jumps: log_of([1, 2], *[(1 + sum(jumps[: at + 1]), 1) for at in range(len(jumps))])
)


@given(logs, st.integers(0, 15), st.integers(0, 20))
def test_a_guess_is_the_last_place_that_may_agree(
    entries: list[Entry], index: int, term: int
) -> None:
    log, ballot = log_from(entries), Ballot(term, NodeId(1))
    fitting = [entry.index for entry in entries if entry.index <= index and entry.ballot <= ballot]
    assert log.guess_match(index, ballot) == max(fitting, default=0)


def agreement(one: list[Entry], other: list[Entry]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@given(logs, logs)
def test_probing_finds_where_two_logs_part(mine: list[Entry], theirs: list[Entry]) -> None:
    """As a leader probes a follower: each answer is a guess, never beyond the truth for long."""
    leader, follower = log_from(mine), log_from(theirs)
    at, probes = leader.last_index, 0
    while True:
        probe = leader.position(at)
        assert probe is not None
        if follower.holds(probe):
            break
        conflict = follower.position(at) is not None
        guess = follower.guess_match(at - conflict, probe.ballot)
        assert guess < at, "every answer leads further back"
        at, probes = guess, probes + 1
    assert at <= agreement(mine, theirs)
    assert probes <= len(mine)


def test_up_to_date_is_the_last_entry_and_not_the_length() -> None:
    low, high = Ballot(1, NodeId(9)), Ballot(2, NodeId(1))
    longer, newer = Position(50, low, b""), Position(3, high, b"")
    assert more_up_to_date(newer, longer)
    assert not more_up_to_date(longer, newer)
    assert more_up_to_date(Position(4, high, b""), newer)
    assert not more_up_to_date(newer, newer)
