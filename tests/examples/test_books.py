"""The examples' judge: it must notice everything that may go wrong."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from distinv import InventoryClient, InventoryStore, calls
from distinv.entry import NodeId
from distinv.errors import InsufficientStock, OutcomeUnknown
from distinv.model import LedgerEntry, Level, Page, Receipt, Shortage, datetime_of
from distinv.testing.processes import ServerStatus

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from books import OPENING, Answer, Books, digest_of
from retail_data import Movement
from till import Settled

STOCK = {"MUG": 5, "CUP": 5}
ORDERS = {
    item.reference: item
    for item in (
        Movement("purchase", "first", {"MUG": 3, "CUP": 1}, {"reference": "first"}),
        Movement("adjust", "count", {"MUG": -1, "CUP": 2}, {"reference": "count"}),
        Movement("receive", "back", {"MUG": 1}, {"reference": "back"}),
        Movement("purchase", "late", {"MUG": 9}, {"reference": "late"}),
    )
}


def sold(seq: int, **on_hand: int) -> Settled:
    levels = tuple(Level(sku, "main", left) for sku, left in on_hand.items())
    return Settled(Receipt(seq, datetime_of(0), levels), 0)


def refused(seq: int, **available: int) -> Settled:
    shortages = tuple(Shortage(sku, "main", 9, left) for sku, left in available.items())
    return Settled(InsufficientStock(shortages=shortages, seq=seq), 1)


def make_books(**changes: Settled) -> Books:
    """The books of a run in which everything went well, but for the changes."""
    settled = {
        "first": sold(3, MUG=2, CUP=4),
        "count": sold(4, MUG=1, CUP=6),
        "back": sold(5, MUG=2),
        "late": refused(6, MUG=2),
    }
    books = Books(STOCK, ORDERS)
    for reference, outcome in (settled | changes).items():
        books.answers.append(Answer(outcome.outcome.seq or 0, reference, outcome))
    return books


class Shelf:
    """A real inventory with the calls of a client."""

    def __init__(self) -> None:
        self._store = InventoryStore()
        self._store.execute([calls.put_item(sku) for sku in STOCK])
        self._store.receive(STOCK, reference=OPENING)

    def take(self, *references: str) -> Shelf:
        for reference in references:
            item = ORDERS[reference]
            getattr(self._store, item.kind)(item.lines, **item.options)
        return self

    async def ledger(self, **options: Any) -> Page[LedgerEntry]:
        return self._store.ledger(**options)


def test_a_good_run_has_no_problems() -> None:
    books = make_books()
    assert books.replay() == {"MUG": 2, "CUP": 6}
    assert books.problems == []
    assert books.accepted() == {"purchase": 1, "adjust": 1, "receive": 1}
    assert (books.refused, books.unknown_resolved) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"late": sold(6)}, "order late was wrongly sold"),
        ({"first": refused(3)}, "order first was wrongly refused"),
        ({"back": sold(4, MUG=3)}, "seq 4 was given 2 times"),
        ({"count": sold(4, MUG=2, CUP=6)}, "order count was told wrong figures"),
        ({"late": refused(6, MUG=3)}, "order late was told wrong figures"),
    ],
)
def test_a_wrong_answer_is_noticed(changes: dict[str, Settled], problem: str) -> None:
    books = make_books(**changes)
    books.replay()
    assert any(problem in text for text in books.problems)


def test_an_order_without_an_answer_and_one_with_two_are_noticed() -> None:
    books = make_books()
    books.answers[0] = books.answers[1]
    books.replay()
    assert "order first was answered 0 times" in books.problems
    assert "order count was answered 2 times" in books.problems


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("taken", "problem"),
    [
        (("first", "count", "back"), None),
        (("first", "count"), "the ledger has order back at []"),
        (("first", "count", "back", "back"), "the ledger has order back at [5, 6]"),
        (("first", "back", "count"), "the ledger has order count at [5]"),
    ],
)
async def test_the_ledger_is_compared(taken: tuple[str, ...], problem: str | None) -> None:
    books = make_books()
    references = await books.audit(cast(InventoryClient, Shelf().take(*taken)))
    assert references == len(set(taken))
    if problem is None:
        assert books.problems == []
    else:
        assert any(problem in text for text in books.problems)


def status(name: str, digest: str, seq: int = 6) -> ServerStatus:
    return ServerStatus(name, NodeId(1), "follower", seq, digest, "state", 9, 1, ())


def test_servers_that_differ_are_noticed() -> None:
    books = make_books()
    digest = digest_of(books.replay())
    books.compare([status("a", digest), status("b", digest)], digest)
    assert books.problems == []
    books.compare([status("a", digest), status("b", "0" * 16), status("c", digest, 5)], digest)
    assert books.problems == [
        f"b has the digest {'0' * 16}, not {digest}",
        "the servers are not in the same state",
    ]


@pytest.mark.anyio
async def test_an_order_that_never_settles_is_a_problem_and_hangs_nobody() -> None:
    class Broken:
        async def purchase(self, *_: Any, **__: Any) -> Receipt:
            raise OutcomeUnknown("Nobody knows.", idempotency_key="1:1")

        async def resolve(self, key: str) -> None:
            raise OutcomeUnknown(idempotency_key=key)

    books = Books(STOCK, ORDERS)
    broken = cast(InventoryClient, Broken())
    await books.order(broken, 1, ORDERS["first"], patience_s=-1.0)
    assert books.problems == ["order first ended in outcome_unknown: Nobody knows."]


@pytest.mark.anyio
async def test_the_watch_counts_only_while_somebody_waits() -> None:
    books = Books(STOCK, ORDERS)
    assert books.watch.waiting == 0
    with books.watch.call():
        assert books.watch.waiting == 1
    assert books.watch.waiting == 0
