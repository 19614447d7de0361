"""A server whose storage waits for nothing has no threads, and the rest is the same."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distinv.entry import ORIGIN, Ballot, make_entry
from distinv.errors import StorageError
from distinv.runtime.storage_thread import StorageInline
from distinv.storage.api import EntryRecord, PromiseRecord, Record
from distinv.storage.memory import MemoryStorage

PROMISE = PromiseRecord(Ballot(1, 7))
ENTRY = EntryRecord(make_entry(ORIGIN, Ballot(1, 7), 5, 2, b"payload"))


class Answers(list[int | StorageError]):
    def __call__(self, answer: int | StorageError) -> None:
        self.append(answer)


def opened() -> MemoryStorage:
    storage = MemoryStorage()
    storage.recover()
    return storage


def test_what_is_submitted_is_durable_at_once() -> None:
    storage, answers = opened(), Answers()
    inline = StorageInline(storage, answers)
    inline.submit(3, [PROMISE, ENTRY])
    assert answers == [3]
    inline.submit(4, [])
    assert answers == [3, 4]
    assert storage.read(1, 1, 100) == [ENTRY.entry]


class Broken(MemoryStorage):
    error: Exception = StorageError("the disk is full")

    def commit(self, records: Sequence[Record]) -> None:
        raise self.error


@pytest.mark.parametrize("error", [StorageError("the disk is full"), RuntimeError("a bug")])
def test_a_failure_is_the_last_answer(error: Exception) -> None:
    class Failing(Broken):
        pass

    Failing.error = error
    answers = Answers()
    inline = StorageInline(Failing(), answers)
    inline.submit(1, [PROMISE])
    inline.submit(2, [PROMISE])
    (answer,) = answers
    assert isinstance(answer, StorageError)
    assert str(error) in str(answer)


def test_closed_it_answers_no_more() -> None:
    answers = Answers()
    inline = StorageInline(opened(), answers)
    inline.close()
    inline.submit(1, [PROMISE])
    assert answers == []
