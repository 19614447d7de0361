"""What every storage promises, shown on both built-in ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from storage_kit import journal

from distinv.entry import NO_BALLOT, Ballot
from distinv.errors import StorageError
from distinv.storage.api import (
    BirthRecord,
    PromiseRecord,
    Record,
    Storage,
    TruncateRecord,
)
from distinv.storage.memory import MemoryStorage
from distinv.testing.conformance.written import (
    BALLOT,
    BIRTH,
    IDENTITY,
    PROMISE,
    log_of,
    misfits,
    records_of,
)

Reopen = Callable[[], Storage]
"""Closes the storage and gives the next one with the same content; recover is the test's."""


@pytest.fixture(params=["journal", "memory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reopen]:
    memory = MemoryStorage()
    opened: list[Storage] = []

    def build() -> Storage:
        for storage in opened:
            storage.close()
        opened.append(memory if request.param == "memory" else journal(tmp_path))
        return opened[-1]

    yield build
    for storage in opened:
        storage.close()


def test_a_blank_directory_holds_nothing(reopen: Reopen) -> None:
    recovered = reopen().recover()
    assert recovered.node is None
    assert recovered.cluster_name is None
    assert recovered.promised == NO_BALLOT
    assert list(recovered.entries) == []
    assert recovered.birth == BirthRecord(None, ())
    assert not recovered.torn


def test_everything_committed_is_there_after_a_restart(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    entries = log_of(b"", b"one", b"x" * 700)
    storage.commit([IDENTITY])
    storage.commit([PROMISE, *records_of(entries[:2])])
    storage.commit([BIRTH, *records_of(entries[2:])])
    recovered = reopen().recover()
    assert (recovered.node, recovered.cluster_name) == (IDENTITY.node, IDENTITY.cluster_name)
    assert recovered.promised == BALLOT
    assert list(recovered.entries) == entries
    assert recovered.birth == BIRTH
    assert not recovered.torn


def test_the_last_promise_and_birth_count(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    storage.commit([IDENTITY, PROMISE, PromiseRecord(Ballot(2**63, 2**63 - 1)), BIRTH])
    storage.commit([BirthRecord(None, (1,))])
    recovered = reopen().recover()
    assert recovered.promised == Ballot(2**63, 2**63 - 1)
    assert recovered.birth == BirthRecord(None, (1,))


def test_a_truncated_tail_is_replaced(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    old = log_of(b"a", b"b", b"c", b"d")
    storage.commit([IDENTITY, *records_of(old)])
    new = log_of(b"B", b"C", after=old[0].position, ballot=Ballot(4, 8))
    storage.commit([TruncateRecord(1), *records_of(new)])
    assert storage.read(1, 3, 10_000) == [old[0], *new]
    with pytest.raises(StorageError):
        storage.read(4, 4, 10_000)
    recovered = reopen().recover()
    assert list(recovered.entries) == [old[0], *new]


def test_truncations_within_one_commit(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    old = log_of(b"a", b"b", b"c")
    storage.commit(records_of(old))
    middle = log_of(b"x", b"y", b"z", after=old[1].position)
    new = log_of(b"Y", after=middle[0].position)
    storage.commit(
        [
            TruncateRecord(2),
            *records_of(log_of(b"brief", after=old[1].position)),
            TruncateRecord(2),  # to where this commit began
            *records_of(middle),
            TruncateRecord(5),  # nothing behind it
            TruncateRecord(3),  # into what this commit wrote
            *records_of(new),
        ]
    )
    expected = [*old[:2], middle[0], *new]
    assert storage.read(1, 4, 10_000) == expected
    storage.commit([TruncateRecord(1), TruncateRecord(0), *records_of(log_of(b"other"))])
    assert list(reopen().recover().entries) == log_of(b"other")


def test_read_stops_at_about_the_bytes_asked_for(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    entries = log_of(*(bytes([number]) * 1_000 for number in range(9)))
    storage.commit(records_of(entries))
    assert storage.read(1, 9, 1 << 20) == entries
    assert storage.read(3, 7, 1 << 20) == entries[2:7]
    assert storage.read(2, 9, 0) == entries[1:2]
    some = storage.read(2, 9, 3_500)
    assert some == entries[1 : 1 + len(some)]
    assert 2 <= len(some) <= 3


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 3), (3, 3), (-1, -1)])
def test_read_of_what_is_not_there(reopen: Reopen, first: int, last: int) -> None:
    storage = reopen()
    storage.recover()
    storage.commit(records_of(log_of(b"a", b"b")))
    with pytest.raises(StorageError):
        storage.read(first, last, 100)
    assert storage.read(1, 2, 1_000) == log_of(b"a", b"b"), "a refused read does no harm"


@pytest.mark.parametrize(("what", "misfit"), misfits().items())
def test_a_record_that_does_not_fit_stops_the_storage(
    reopen: Reopen, what: str, misfit: list[Record]
) -> None:
    storage = reopen()
    storage.recover()
    first = log_of(b"a")
    storage.commit([IDENTITY, *records_of(first)])
    with pytest.raises(StorageError):
        storage.commit([PROMISE, *misfit])
    with pytest.raises(StorageError):
        storage.commit([PROMISE])
    with pytest.raises(StorageError):
        storage.read(1, 1, 100)
    recovered = reopen().recover()
    assert list(recovered.entries) == first
    assert recovered.promised == NO_BALLOT, "none of the commit's records were kept"


def test_calls_before_recover_and_after_close_are_refused(reopen: Reopen) -> None:
    storage = reopen()
    with pytest.raises(StorageError):
        storage.commit([IDENTITY])
    storage.recover()
    with pytest.raises(StorageError):
        storage.recover()
    storage.commit([IDENTITY, *records_of(log_of(b"a"))])
    storage.close()
    storage.close()
    with pytest.raises(StorageError):
        storage.commit([PROMISE])
    with pytest.raises(StorageError):
        storage.read(1, 1, 100)


def test_a_commit_of_nothing_changes_nothing(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    storage.commit([])
    storage.commit([IDENTITY])
    storage.commit([])
    assert reopen().recover().node == IDENTITY.node


def test_recovered_entries_do_not_change_with_the_log(reopen: Reopen) -> None:
    storage = reopen()
    storage.recover()
    old = log_of(b"a", b"b", b"c")
    storage.commit(records_of(old))
    storage = reopen()
    entries = storage.recover().entries
    storage.commit([TruncateRecord(0), *records_of(log_of(b"other"))])
    assert list(entries) == old
    assert (len(entries), entries[0], entries[-1]) == (3, old[0], old[2])
    assert (list(entries[1:]), list(entries[::-2])) == (old[1:], old[::-2])
    with pytest.raises(IndexError):
        entries[3]
