"""The log in memory, what of it is durable, and what has to wait for that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinv.core.durability import Durability
from distinv.core.events import InvariantBroken, Send
from distinv.core.log import Log, more_up_to_date
from distinv.entry import NO_HASH, ORIGIN, Ballot, Entry, NodeId, Position, follows, make_entry
from distinv.storage.api import PromiseRecord
from distinv.wire.messages import Ping

A, B = Ballot(1, 7), Ballot(2, 3)


def chain(*terms: int, payload: bytes = b"x", after: Position = ORIGIN) -> list[Entry]:
    entries = []
    for term in terms:
        entry = make_entry(after, Ballot(term, 7), term * 1_000, 2, payload)
        entries.append(entry)
        after = entry.position
    return entries


def log_of(*terms: int, cache_bytes: int = 1_000) -> Log:
    return Log(chain(*terms), cache_bytes=cache_bytes)


def test_equal_hash_means_equal_history() -> None:
    one, other = chain(1, 1, 2), chain(1, 1, 2, payload=b"y")
    assert follows(ORIGIN, one)
    assert not follows(ORIGIN, [one[0], other[1]])
    assert not follows(ORIGIN, one[1:])
    assert not follows(one[0].position, [make_entry(one[0].position, Ballot(0, 7), 0, 2, b"")])


def test_a_log_takes_only_what_follows() -> None:
    log = log_of(1, 1)
    with pytest.raises(InvariantBroken):
        log.append(chain(1)[0])
    with pytest.raises(InvariantBroken):
        log.append(make_entry(log.last, Ballot(0, 1), 0, 2, b""))


def test_truncation_forgets_the_tail_and_its_time() -> None:
    log = log_of(1, 2, 3)
    log.truncate(1)
    assert (log.last_index, log.last_time_us) == (1, 1_000)
    assert log.position(2) is None
    assert log.body(2) is None
    with pytest.raises(InvariantBroken):
        log.truncate(5)


def test_more_up_to_date_is_by_ballot_then_by_length() -> None:
    short_new, long_old = Position(1, B, NO_HASH), Position(9, A, NO_HASH)
    assert more_up_to_date(short_new, long_old)
    assert not more_up_to_date(long_old, short_new)
    assert more_up_to_date(Position(2, B, NO_HASH), short_new)
    assert not more_up_to_date(short_new, short_new)


def test_bodies_to_be_applied_are_never_evicted() -> None:
    log = log_of(1, 1, 1, 1, cache_bytes=2)
    log.evict_bodies(applied=1)
    assert log.body(1) is None
    assert log.body(2) is not None
    log.evict_bodies(applied=4)
    assert [log.body(index) is None for index in (1, 2, 3, 4)] == [True, True, False, False]
    assert log.bodies(1, 4, 100) is None, "the first is only on disk"
    found = log.bodies(3, 4, 100)
    assert found is not None
    assert [entry.index for entry in found] == [3, 4]


@given(st.lists(st.integers(1, 3), max_size=8), st.lists(st.integers(1, 3), max_size=8))
def test_the_guess_never_skips_a_common_entry(mine: list[int], theirs: list[int]) -> None:
    own, other = log_of(*sorted(mine)), log_of(*sorted(theirs))
    common = 0
    while own.position(common + 1) is not None and own.position(common + 1) == other.position(
        common + 1
    ):
        common += 1
    guess = own.guess_match(other.last_index, other.last.ballot)
    assert guess >= common


def test_nothing_is_released_before_the_write_behind_it() -> None:
    durability = Durability(0)
    free = Send(NodeId(1), Ping(1))
    assert durability.hold(free) is free, "nothing recorded, nothing to wait for"
    durability.record(PromiseRecord(A))
    promise = Send(NodeId(1), Ping(2))
    assert durability.hold(promise) is None
    first = durability.take_write(0, now=5)
    assert first is not None
    durability.record(PromiseRecord(B))
    second_promise = Send(NodeId(1), Ping(3))
    assert durability.hold(second_promise) is None
    second = durability.take_write(0, now=6)
    assert second is not None
    assert durability.oldest_write_us(now=15) == 10
    assert durability.persisted(first.ticket) == [promise]
    assert durability.persisted(second.ticket) == [second_promise]
    assert durability.writing == 0


def test_a_write_does_not_vouch_for_what_was_truncated_since() -> None:
    """Entries 1..8 are being written when 7 and 8 are replaced: the first write is for 6."""
    durability = Durability(0)
    durability.record(PromiseRecord(A))
    first = durability.take_write(8, now=0)
    assert first is not None
    durability.truncated(6)
    durability.record(PromiseRecord(B))
    second = durability.take_write(8, now=0)
    assert second is not None
    durability.persisted(first.ticket)
    assert durability.durable_index == 6
    durability.persisted(second.ticket)
    assert durability.durable_index == 8
