"""The two steps of the storage in memory, and the faults a simulator gives it."""

from __future__ import annotations

import pytest

from distinv.entry import NO_BALLOT, Ballot
from distinv.errors import CorruptLog, StorageError
from distinv.storage.api import PromiseRecord, TruncateRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.conformance.written import (
    BALLOT,
    IDENTITY,
    PROMISE,
    base_at,
    log_of,
    records_of,
)


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.recover()
    return storage


def test_staged_is_not_durable(storage: MemoryStorage) -> None:
    storage.stage([IDENTITY, PROMISE])
    storage.crash()
    recovered = storage.recover()
    assert recovered.node is None
    assert recovered.promised == NO_BALLOT
    assert not recovered.torn


def test_staged_after_a_restart_is_not_durable(storage: MemoryStorage) -> None:
    storage.commit([IDENTITY])
    storage.crash()
    storage.recover()
    storage.stage([PROMISE, *records_of(log_of(b"a"))])
    storage.crash()
    recovered = storage.recover()
    assert recovered.promised == NO_BALLOT
    assert list(recovered.entries) == []


def test_tickets_end_in_order(storage: MemoryStorage) -> None:
    entries = log_of(b"a", b"b", b"c")
    tickets = [storage.stage(records_of([entry])) for entry in entries]
    assert tickets == sorted(set(tickets))
    storage.make_durable(tickets[1])
    assert storage.read(1, 2, 100) == entries[:2]
    with pytest.raises(StorageError):
        storage.read(3, 3, 100)
    storage.make_durable(tickets[0])
    storage.crash()
    assert list(storage.recover().entries) == entries[:2]


def test_a_crash_may_keep_some_whole_commits(storage: MemoryStorage) -> None:
    entries = log_of(b"a", b"b", b"c", b"d")
    for entry in entries:
        storage.stage([PromiseRecord(Ballot(entry.index, 1)), *records_of([entry])])
    storage.crash(2, torn=True)
    recovered = storage.recover()
    assert list(recovered.entries) == entries[:2]
    assert recovered.promised == Ballot(2, 1)
    assert recovered.torn


def test_a_torn_end_is_reported_until_something_follows_it(storage: MemoryStorage) -> None:
    storage.stage([IDENTITY])
    storage.crash(torn=True)
    assert storage.recover().torn
    storage.crash()
    assert storage.recover().torn
    storage.commit([IDENTITY])
    storage.crash(torn=True)
    assert not storage.recover().torn, "nothing was under way"


def test_what_was_lost_can_be_written_anew(storage: MemoryStorage) -> None:
    old = log_of(b"a", b"b")
    storage.commit(records_of(old))
    storage.stage([TruncateRecord(1), *records_of(log_of(b"lost", after=old[0].position))])
    storage.crash()
    storage.recover()
    new = log_of(b"c", after=old[1].position)
    storage.commit(records_of(new))
    assert storage.read(1, 3, 100) == [*old, *new]


def test_what_was_recovered_does_not_change(storage: MemoryStorage) -> None:
    storage.commit([PROMISE, *records_of(log_of(b"a"))])
    storage.crash()
    recovered = storage.recover()
    storage.commit([TruncateRecord(0), PromiseRecord(Ballot(9, 9))])
    assert list(recovered.entries) == log_of(b"a")
    assert recovered.promised == BALLOT


def test_a_staged_base_forgets_nothing_yet(storage: MemoryStorage) -> None:
    entries = log_of(b"a", b"b", b"c")
    storage.commit(records_of(entries))
    base = base_at(entries[1].position)
    ticket = storage.stage([base])
    assert storage.read(1, 3, 100) == entries
    assert (storage.base_index, storage.last_index) == (0, 3)
    storage.crash()
    assert storage.recover().base is None
    ticket = storage.stage([base, TruncateRecord(2)])
    storage.stage([*records_of(log_of(b"lost", after=base.position))])
    storage.make_durable(ticket)
    assert (storage.base_index, storage.last_index) == (2, 2)
    storage.crash()
    recovered = storage.recover()
    assert (recovered.base, list(recovered.entries)) == (base, [])


def test_a_flipped_entry_behind_a_base_is_found(storage: MemoryStorage) -> None:
    entries = log_of(b"a", b"b", b"c", b"d")
    storage.commit([*records_of(entries), base_at(entries[1].position)])
    for gone in (0, 1, 2, 5):
        with pytest.raises(IndexError):
            storage.flip(gone)
    storage.flip(4)
    assert storage.read(3, 3, 100) == entries[2:3]
    with pytest.raises(CorruptLog):
        storage.read(3, 4, 100)
    storage.crash()
    with pytest.raises(CorruptLog):
        storage.recover()


def test_a_broken_disk_refuses_until_the_restart(storage: MemoryStorage) -> None:
    storage.commit([IDENTITY])
    ticket = storage.stage([PROMISE])
    storage.fail("the disk is full")
    for call in (
        lambda: storage.stage([PROMISE]),
        lambda: storage.make_durable(ticket),
        lambda: storage.commit([PROMISE]),
    ):
        with pytest.raises(StorageError, match="the disk is full"):
            call()
    storage.crash()
    assert storage.recover().promised == NO_BALLOT
