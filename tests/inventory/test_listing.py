"""Reading levels, items and locations."""

from __future__ import annotations

from typing import Any

import pytest
from inventory_kit import CheckedStore, Log

from distinv.config import Limits
from distinv.errors import InvalidRequest, UnknownItem, UnknownLocation
from distinv.inventory import calls
from distinv.inventory.reading import prefix_end
from distinv.inventory.store import InventoryStore
from distinv.model import Level, Line

SKUS = ["", "A", "A1", "A2", "B", "a", "Ä", "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffffx"]


def test_levels_come_in_one_cut_in_the_order_asked(shop: CheckedStore) -> None:
    levels = shop.levels(["B", ("A", "back"), "A", "A"])
    assert [(level.sku, level.location, level.on_hand) for level in levels] == [
        ("B", "main", 5),
        ("A", "back", 0),
        ("A", "main", 10),
        ("A", "main", 10),
    ]
    assert {level.as_of for level in levels} == {shop.seq}
    assert shop.levels([]) == ()


def test_a_level_nobody_named_is_zero_at_version_zero(shop: CheckedStore) -> None:
    assert shop.level("C") == Level("C", "main", 0, version=0)
    with pytest.raises(UnknownItem) as caught:
        shop.level("NOPE")
    assert caught.value.seq is None
    with pytest.raises(UnknownLocation):
        shop.level("A", "nowhere")
    with pytest.raises(UnknownItem):
        shop.levels(["A", "NOPE"])
    with pytest.raises(UnknownItem):
        shop.get_item("NOPE")


def test_available_counts_sellable_locations(shop: CheckedStore) -> None:
    shop.receive([Line("A", 3, "back"), Line("A", 4, "quarantine")])
    assert shop.available("A") == 13
    assert shop.available("A", locations=["back", "back"]) == 3
    assert shop.available("A", locations=["quarantine"]) == 0
    assert shop.available("A", locations=[]) == 0
    assert shop.available("C") == 0
    with pytest.raises(UnknownItem):
        shop.available("NOPE")
    with pytest.raises(UnknownLocation):
        shop.available("A", locations=["nowhere"])


def filled() -> InventoryStore:
    store = InventoryStore()
    store.execute([calls.put_item(sku, name=sku * 2) for sku in SKUS if sku])
    store.put_location("back")
    store.receive([Line(sku, place + 1, "main") for place, sku in enumerate(SKUS) if sku])
    store.receive([Line(sku, 1, "back") for sku in ("A", "A2")])
    return store


def listed(store: InventoryStore, limit: int, **filters: Any) -> list[tuple[str, str]]:
    found: list[Level] = []
    after = None
    while True:
        page = store.list_levels(limit=limit, after=after, **filters)
        assert len(page) <= limit
        found += page
        after = page.next
        if after is None:
            return [(level.sku, level.location) for level in found]


@pytest.mark.parametrize("scan_rows", [20_000, 2])
@pytest.mark.parametrize("limit", [1, 3, 1_000])
@pytest.mark.parametrize("prefix", SKUS)
def test_pages_of_levels(prefix: str, limit: int, scan_rows: int) -> None:
    with filled() as store:
        store.machine._reader._limits = Limits(page_scan_rows=scan_rows)
        levels = [level for level in store.iter_levels() if level.sku.startswith(prefix)]
        keys = [(level.sku, level.location) for level in levels]
        assert keys == sorted(keys)
        assert listed(store, limit, prefix=prefix) == keys
        main = [key for key in keys if key[1] == "main"]
        assert listed(store, limit, prefix=prefix, location="main") == main
        below = [key for key, level in zip(keys, levels) if level.available < 4]
        assert listed(store, limit, prefix=prefix, below=4) == below


@pytest.mark.parametrize("prefix", SKUS)
@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_pages_of_items(prefix: str, limit: int) -> None:
    with filled() as store:
        found: list[str] = []
        after = None
        while True:
            page = store.list_items(prefix, after, limit)
            found += [item.sku for item in page]
            after = page.next
            if after is None:
                break
        assert found == sorted(sku for sku in SKUS if sku and sku.startswith(prefix))


def test_pages_are_bounded_in_bytes() -> None:
    with InventoryStore(limits=Limits(page_bytes=5_000)) as store:
        for number in range(9):
            store.put_item(f"{number}", attributes={"text": "x" * 1_000})
        first = store.list_items(limit=9)
        assert 1 <= len(first) <= 3
        assert first.next == first.items[-1].sku


def test_a_sku_may_stand_for_the_end_of_its_levels() -> None:
    with filled() as store:
        assert store.list_levels(after="A", limit=1).items[0].sku == "A1"


def test_levels_of_a_place_that_is_not_there() -> None:
    with filled() as store, pytest.raises(UnknownLocation):
        store.list_levels(location="nowhere")


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", None),
        ("a", "b"),
        ("\ud7ff", "\ue000"),
        ("\U0010ffff", None),
        ("a\U0010ffff", "b"),
    ],
)
def test_prefix_end(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


def test_reads_take_the_clients_options(shop: CheckedStore) -> None:
    assert shop.level("A", read="local", min_seq=3, timeout=1.0).on_hand == 10
    with pytest.raises(InvalidRequest):
        shop.level("A", read="dirty")  # type: ignore[arg-type]


def test_a_small_cache_changes_nothing() -> None:
    with InventoryStore(limits=Limits(levels_cached=2)) as small, filled() as large:
        small.execute([calls.put_item(sku, name=sku * 2) for sku in SKUS if sku])
        small.put_location("back")
        small.receive([Line(sku, place + 1, "main") for place, sku in enumerate(SKUS) if sku])
        small.receive([Line(sku, 1, "back") for sku in ("A", "A2")])
        for sku in SKUS[1:]:
            assert small.level(sku).on_hand == large.level(sku).on_hand
            assert sum(map(len, small.machine._tables._levels.values())) <= 3
        small.ship({"A": 1, "B": 1})
        assert small.machine.problems() == []
        assert small.digest().value != large.digest().value
        large.ship({"A": 1, "B": 1})
        assert small.digest().value == large.digest().value


def test_a_read_between_two_flushes_forgets_no_change() -> None:
    log = Log(limits=Limits(levels_cached=1))
    session = log.open()
    log.send(session, 1, calls.execute([calls.put_item(sku) for sku in "ABC"]))
    ask = calls.levels("ABC")
    for number in range(2, 6):
        log.send(session, number, calls.receive({"A": 1, "B": 2}))
        levels = ask.value(log.machine.query(ask.encode()))
        assert [level.on_hand for level in levels] == [number - 1, 2 * (number - 1), 0]
    assert log.machine.problems() == []
