"""Long work beside the loop: one of a kind at a time, shared by those who ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distinv.server.errands import Errands


def noting(answers: list[tuple[str, Any, int]], who: str) -> Callable[[Any, int], None]:
    return lambda result, now: answers.append((who, result, now))


def test_who_asks_meanwhile_shares_the_next_errand() -> None:
    errands = Errands(limit=10)
    answers: list[tuple[str, Any, int]] = []
    started: list[bytes] = []

    def start(kind: bytes) -> Callable[[], Any]:
        started.append(kind)
        return lambda: len(started)

    assert errands.take(start) == []
    errands.ask(b"digest", noting(answers, "first"))
    errands.ask(b"digest", noting(answers, "second"))
    errands.ask(b"other", noting(answers, "third"))
    digest, other = errands.take(start)
    errands.ask(b"digest", noting(answers, "late"))
    assert errands.take(start) == []
    digest.finish(digest.run(), 100)
    assert answers == [("first", 2, 100), ("second", 2, 100)]
    (again,) = errands.take(start)
    assert started == [b"digest", b"other", b"digest"]
    again.finish(again.run(), 200)
    other.finish("done", 300)
    assert answers[2:] == [("late", 3, 200), ("third", "done", 300)]


def test_a_failed_errand_answers_nobody_and_can_be_asked_again() -> None:
    errands = Errands(limit=1)
    answers: list[tuple[str, Any, int]] = []
    errands.ask(b"digest", noting(answers, "first"))
    (errand,) = errands.take(lambda kind: lambda: None)
    errand.fail()
    assert errands.ask(b"digest", noting(answers, "again"))
    (errand,) = errands.take(lambda kind: lambda: None)
    errand.finish(7, 1)
    assert answers == [("again", 7, 1)]


def test_more_askers_than_allowed_are_refused() -> None:
    errands = Errands(limit=1)
    assert errands.ask(b"digest", lambda result, now: None)
    assert not errands.ask(b"digest", lambda result, now: None)
    (errand,) = errands.take(lambda kind: lambda: None)
    errand.finish(errand.run(), 1)
    assert errands.ask(b"digest", lambda result, now: None)
