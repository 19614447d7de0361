"""Items and locations."""

from __future__ import annotations

from typing import Any

import pytest
from inventory_kit import CheckedStore

from distinv.config import Limits
from distinv.errors import (
    InvalidLocation,
    ItemNotEmpty,
    StaleVersion,
    UnknownItem,
    UnknownLocation,
)
from distinv.model import AttributeValue, Item, Level, Location


def test_a_new_item_has_defaults(store: CheckedStore) -> None:
    assert store.put_item("A") == Item("A", "", "each", 0, {}, False, 1)
    assert store.get_item("A") == Item("A", version=1)


def test_put_item_changes_what_it_names_and_keeps_the_rest(store: CheckedStore) -> None:
    store.put_item("A", name="Tea", unit="kg", scale=3, attributes={"b": 1, "a": "x"})
    store.put_item("A", name="Green tea")
    item = store.put_item("A", discontinued=True)
    assert item == Item("A", "Green tea", "kg", 3, {"a": "x", "b": 1}, True, 3)
    assert store.put_item("A", attributes={}, discontinued=False).attributes == {}


def test_attributes_hold_text_numbers_booleans_and_none(store: CheckedStore) -> None:
    attributes: dict[str, AttributeValue] = {
        "text": "é",
        "number": -(2**63),
        "flag": True,
        "nothing": None,
    }
    assert store.put_item("A", attributes=attributes).attributes == attributes
    assert store.get_item("A").attributes["flag"] is True


def test_put_item_compares_the_version(store: CheckedStore) -> None:
    store.put_item("A", if_version=0)
    with pytest.raises(StaleVersion) as caught:
        store.put_item("A", if_version=0)
    assert caught.value.current == 1
    store.put_item("A", name="x", if_version=1)
    with pytest.raises(StaleVersion) as caught:
        store.put_item("B", if_version=7)
    assert caught.value.current == 0


def test_unit_and_scale_are_fixed_while_there_is_stock(store: CheckedStore) -> None:
    store.put_item("A", unit="kg", scale=3)
    store.put_location("back")
    store.receive({"A": 1}, location="back")
    changes: list[dict[str, Any]] = [{"unit": "g"}, {"scale": 0}]
    for change in changes:
        with pytest.raises(ItemNotEmpty):
            store.put_item("A", **change)
    store.put_item("A", unit="kg", scale=3, name="the same unit is no change")
    store.adjust("A", -1, location="back")
    assert store.put_item("A", unit="g", scale=0).unit == "g"


def test_delete_item(shop: CheckedStore) -> None:
    with pytest.raises(ItemNotEmpty):
        shop.delete_item("A")
    shop.ship({"A": 10})
    receipt = shop.delete_item("A")
    assert receipt.seq == shop.seq
    with pytest.raises(UnknownItem):
        shop.get_item("A")
    with pytest.raises(UnknownItem):
        shop.level("A")
    with pytest.raises(UnknownItem):
        shop.delete_item("A")
    assert [level.sku for level in shop.list_levels()] == ["B"]
    assert [item.sku for item in shop.list_items()] == ["B", "C"]


def test_delete_item_compares_the_version(shop: CheckedStore) -> None:
    with pytest.raises(StaleVersion) as caught:
        shop.delete_item("C", if_version=1)
    assert caught.value.current == 3
    shop.delete_item("C", if_version=3)


def test_an_item_may_return_and_keeps_its_history(shop: CheckedStore) -> None:
    shop.ship({"A": 10})
    shop.delete_item("A")
    shop.put_item("A", name="again")
    assert shop.level("A").on_hand == 0
    shop.receive({"A": 2})
    assert [entry.delta for entry in shop.ledger(sku="A")] == [10, -10, 2]


def test_main_exists_from_the_start_and_stays(store: CheckedStore) -> None:
    assert store.list_locations() == (Location("main", True, 0),)
    with pytest.raises(InvalidLocation):
        store.delete_location("main")


def test_locations(store: CheckedStore) -> None:
    assert store.put_location("back", sellable=False) == Location("back", False, 1)
    store.put_item("A")
    store.receive({"A": 1}, location="back")
    assert store.put_location("back") == Location("back", True, 4)
    with pytest.raises(ItemNotEmpty):
        store.delete_location("back")
    store.transfer({"A": 1}, "back", "main")
    store.delete_location("back")
    with pytest.raises(UnknownLocation):
        store.delete_location("back")
    with pytest.raises(UnknownLocation):
        store.level("A", "back")
    assert [level.location for level in store.list_levels()] == ["main"]
    store.put_location("back")
    store.receive({"A": 3}, location="back")
    assert store.level("A", "back") == Level("A", "back", 3, version=store.seq)


def test_the_number_of_locations_is_bounded() -> None:
    with CheckedStore(limits=Limits(locations_max=2)) as store:
        store.put_location("one")
        with pytest.raises(InvalidLocation):
            store.put_location("two")
        store.put_location("one", sellable=False)
        store.delete_location("one")
        store.put_location("two")
