"""The ledger: every line of every accepted command, by sku, location, reference, place and time."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inventory_kit import CheckedStore, Log

from distinv.config import Limits
from distinv.errors import InsufficientStock
from distinv.inventory import calls
from distinv.inventory.store import InventoryStore
from distinv.model import LedgerEntry, Line, Page


def all_pages(store: InventoryStore, **filters: Any) -> list[LedgerEntry]:
    """Every entry, by following `next`; each entry once."""
    found: list[LedgerEntry] = []
    after = None
    while True:
        page: Page[LedgerEntry] = store.ledger(after=after, **filters)
        found += page
        after = page.next
        if after is None:
            return found


def filled(limits: Limits | None = None) -> InventoryStore:
    """Some 60 commands on four skus and two locations, a few with references."""
    ticks = iter(range(1_000_000, 10**9, 1_000_000))
    store = InventoryStore(clock=lambda: next(ticks), limits=limits)
    random = Random(5)
    store.put_location("back")
    store.execute([calls.put_item(sku) for sku in "ABCD"])
    store.receive(dict.fromkeys("ABCD", 1_000))
    for number in range(60):
        lines = [
            Line(random.choice("ABCD"), random.randint(1, 5), random.choice(["main", "back"]))
            for _ in range(random.randint(1, 4))
        ]
        reference = f"doc-{number % 7}" if number % 3 == 0 else None
        if random.random() < 0.3:
            lines = [Line(line.sku, line.quantity) for line in lines]
            store.transfer(lines, "main", "back", reference=reference)
        else:
            store.receive(lines, reference=reference)
    return store


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"sku": "A"},
        {"sku": "A", "location": "back"},
        {"location": "back"},
        {"reference": "doc-3"},
        {"reference": "doc-3", "sku": "B"},
        {"sku": "nothing"},
        {"reference": "nothing"},
    ],
)
@pytest.mark.parametrize("since", [None, 20])
def test_every_way_to_ask_gives_what_a_filter_would(
    filters: dict[str, str], newest_first: bool, since: int | None
) -> None:
    with filled() as store:
        whole = all_pages(store, limit=1_000)
        expected = [
            entry
            for entry in whole
            if all(getattr(entry, name) == value for name, value in filters.items())
            and (since is None or entry.seq >= since)
        ]
        if newest_first:
            expected.reverse()
        for limit in (1, 7, 1_000):
            found = all_pages(store, limit=limit, newest_first=newest_first, since=since, **filters)
            assert found == expected


def test_a_page_has_its_limit_and_says_where_to_go_on() -> None:
    with filled() as store:
        page = store.ledger(limit=5)
        assert len(page) == 5
        assert page.as_of == store.seq
        assert store.ledger(limit=5, after=page.next).items[0] not in page.items
        whole = all_pages(store)
        assert len(store.ledger(limit=len(whole)).items) == len(whole)
        assert store.ledger(limit=len(whole)).next is None


def test_after_a_seq_is_after_all_of_its_lines() -> None:
    with filled() as store:
        assert [entry.seq for entry in store.ledger(after=3, limit=1)] == [4]
        assert {entry.seq for entry in store.ledger(after=4, newest_first=True)} == {3}


def test_since_a_time() -> None:
    with filled() as store:
        whole = all_pages(store)
        for entry in whole:
            later = [other for other in whole if other.at >= entry.at]
            assert all_pages(store, since=entry.at) == later
        assert all_pages(store, since=whole[0].at - timedelta(days=1)) == whole
        assert all_pages(store, since=whole[-1].at + timedelta(microseconds=1)) == []


def test_a_page_looks_at_a_bounded_number_of_rows() -> None:
    with filled() as unbounded, filled(Limits(page_scan_rows=4)) as store:
        assert len(store.ledger(reference="doc-3", location="back")) < 10
        for filters in ({}, {"sku": "A"}, {"location": "back"}, {"reference": "doc-3"}):
            for newest_first in (False, True):
                options = {**filters, "newest_first": newest_first}
                assert all_pages(store, **options) == all_pages(unbounded, **options)


def test_a_page_is_bounded_in_bytes() -> None:
    with filled(Limits(page_bytes=1_000)) as store:
        assert 1 <= len(store.ledger(limit=1_000)) < 20
        assert len(all_pages(store, limit=1_000)) > 60


def test_refusals_leave_no_line(shop: CheckedStore) -> None:
    before = all_pages(shop)
    with pytest.raises(InsufficientStock):
        shop.ship({"A": 1, "C": 1}, reference="refused")
    assert all_pages(shop) == before
    assert len(shop.ledger(reference="refused")) == 0


def test_the_actor_is_the_sessions_name() -> None:
    log = Log()
    one, two = log.open(1, "till-1"), log.open(2, "till-2")
    log.send(one, 1, calls.put_item("A"))
    log.send(one, 2, calls.receive({"A": 1}))
    log.send(two, 1, calls.receive({"A": 1}))
    page = calls.ledger().value(log.machine.query(calls.ledger().encode()))
    assert [entry.actor for entry in page] == ["till-1", "till-2"]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(1, 9)), min_size=1, max_size=12))
def test_running_balances(moves: list[tuple[str, int]]) -> None:
    with InventoryStore() as store:
        store.execute([calls.put_item("A"), calls.put_item("B")])
        for sku, quantity in moves:
            store.receive({sku: quantity})
        for sku in "AB":
            total = 0
            for entry in all_pages(store, sku=sku, limit=3):
                total += entry.delta
                assert entry.on_hand_after == total
            assert total == store.level(sku).on_hand
