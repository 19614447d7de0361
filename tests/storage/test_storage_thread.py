"""The storage thread: order, group commit, failure, end. No test sleeps: commits wait at a gate."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from storage_kit import journal, look

from distinv.entry import Entry
from distinv.errors import StorageError
from distinv.runtime.storage_thread import StorageThread
from distinv.storage.api import Record, Recovered
from distinv.storage.memory import MemoryStorage
from distinv.testing.conformance.written import PROMISE, log_of, records_of


class GatedStorage:
    """Every commit says that it has begun, then waits for its outcome: an error or None."""

    def __init__(self) -> None:
        self.begun: queue.Queue[list[Record]] = queue.Queue()
        self.outcomes: queue.Queue[Exception | None] = queue.Queue()
        self.memory = MemoryStorage()
        self.memory.recover()

    def recover(self) -> Recovered:
        return self.memory.recover()

    def commit(self, records: Sequence[Record]) -> None:
        self.begun.put(list(records))
        if (error := self.outcomes.get(timeout=10)) is not None:
            raise error
        self.memory.commit(records)

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        raise AssertionError("the thread does not read")

    def close(self) -> None:
        raise AssertionError("the thread does not close the storage")


class Answers:
    """What the thread reported, as it comes."""

    def __init__(self) -> None:
        self.queue: queue.Queue[int | StorageError] = queue.Queue()

    def __call__(self, answer: int | StorageError) -> None:
        self.queue.put(answer)

    def next(self) -> int | StorageError:
        return self.queue.get(timeout=10)

    def rest(self) -> list[int | StorageError]:
        return [self.queue.get() for _ in range(self.queue.qsize())]


@pytest.fixture
def gated() -> GatedStorage:
    return GatedStorage()


@pytest.fixture
def answers() -> Answers:
    return Answers()


def test_what_waits_is_committed_together(gated: GatedStorage, answers: Answers) -> None:
    first, second, third, fourth = records_of(log_of(b"a", b"b", b"c", b"d"))
    thread = StorageThread(gated, answers)
    thread.submit(1, [first])
    assert gated.begun.get(timeout=10) == [first]
    thread.submit(2, [second, PROMISE])
    thread.submit(3, [])
    thread.submit(7, [third])
    gated.outcomes.put(None)
    assert answers.next() == 1
    assert gated.begun.get(timeout=10) == [second, PROMISE, third]
    thread.submit(8, [fourth])
    gated.outcomes.put(None)
    assert answers.next() == 7
    assert gated.begun.get(timeout=10) == [fourth]
    gated.outcomes.put(None)
    assert answers.next() == 8
    thread.close()
    assert answers.rest() == []
    assert len(gated.memory.read(1, 4, 1_000)) == 4


def test_nothing_to_write_is_answered_too(gated: GatedStorage, answers: Answers) -> None:
    thread = StorageThread(gated, answers)
    thread.submit(5, [])
    assert answers.next() == 5
    thread.close()
    assert gated.begun.empty()


def test_close_commits_what_waits(gated: GatedStorage, answers: Answers) -> None:
    first, second = records_of(log_of(b"a", b"b"))
    thread = StorageThread(gated, answers)
    thread.submit(1, [first])
    gated.begun.get(timeout=10)
    thread.submit(2, [second])
    closing = threading.Thread(target=thread.close)
    closing.start()
    gated.outcomes.put(None)
    gated.outcomes.put(None)
    closing.join()
    assert answers.rest() == [1, 2]
    thread.submit(3, [PROMISE])
    thread.close()
    assert answers.rest() == []
    assert len(gated.memory.read(1, 2, 1_000)) == 2


@pytest.mark.parametrize("error", [StorageError("the disk failed"), RuntimeError("a bug")])
def test_a_failure_is_the_last_answer(
    gated: GatedStorage, answers: Answers, error: Exception
) -> None:
    thread = StorageThread(gated, answers)
    thread.submit(1, [PROMISE])
    gated.begun.get(timeout=10)
    thread.submit(2, [PROMISE])
    gated.outcomes.put(error)
    answer = answers.next()
    assert isinstance(answer, StorageError)
    assert str(error) in str(answer)
    thread.submit(3, [PROMISE])
    thread.close()
    assert answers.rest() == []
    assert gated.begun.empty(), "what waited was never tried"


def test_with_the_journal(tmp_path: Path, answers: Answers) -> None:
    storage = journal(tmp_path)
    storage.recover()
    entries = log_of(*(b"x" * number for number in range(200)))
    thread = StorageThread(storage, answers)
    for entry in entries:
        thread.submit(entry.index, records_of([entry]))
    thread.close()
    storage.close()
    tickets = [answer for answer in answers.rest() if isinstance(answer, int)]
    assert tickets == sorted(set(tickets))
    assert tickets[-1] == 200
    assert list(look(tmp_path)[0].entries) == entries
