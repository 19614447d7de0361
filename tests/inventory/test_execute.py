"""Several operations as one command: all of them or the first one's refusal."""

from __future__ import annotations

import pytest
from inventory_kit import CheckedStore

from distinv.errors import (
    InsufficientStock,
    InvalidRequest,
    ItemNotEmpty,
    TooManyLines,
    UnknownItem,
)
from distinv.inventory import calls


def test_each_operation_sees_what_the_one_before_left(shop: CheckedStore) -> None:
    receipt = shop.execute(
        [
            calls.put_item("D"),
            calls.receive({"D": 5, "A": 1}),
            calls.ship({"D": 2, "A": 11}),
            calls.transfer({"D": 1}, "main", "back"),
            calls.set_on_hand("D", 9, location="back", if_on_hand=1),
            calls.adjust("D", -1, location="back"),
        ]
    )
    levels = {(level.sku, level.location): level.on_hand for level in receipt.levels}
    assert levels == {("D", "main"): 2, ("A", "main"): 0, ("D", "back"): 8}
    assert {level.version for level in receipt.levels} == {receipt.seq}


def test_the_first_refusal_takes_everything_back(shop: CheckedStore) -> None:
    before = shop.state_digest()
    with pytest.raises(InsufficientStock) as caught:
        shop.execute(
            [
                calls.put_item("D"),
                calls.put_item("A", name="renamed", attributes={"x": 1}),
                calls.receive({"D": 5}, location="back"),
                calls.transfer({"A": 10}, "main", "back"),
                calls.put_location("new"),
                calls.put_location("back", sellable=False),
                calls.delete_item("C"),
                calls.delete_location("quarantine"),
                calls.ship({"A": 1}),
                calls.ship({"NOPE": 1}),
            ]
        )
    assert [shortage.sku for shortage in caught.value.shortages] == ["A"]
    assert shop.level("A").on_hand == 10
    assert before != shop.state_digest(), "the refusal has a seq"
    assert len(shop.ledger()) == 2


def test_deleted_and_put_again_within_one_command(shop: CheckedStore) -> None:
    swap = [
        calls.delete_item("C"),
        calls.put_item("C", name="new"),
        calls.delete_location("back"),
        calls.put_location("back"),
        calls.receive({"C": 1}, location="back"),
    ]
    with pytest.raises(UnknownItem):
        shop.execute([*swap, calls.ship({"NOPE": 1})])
    assert shop.get_item("C").name == ""
    shop.execute(swap)
    assert shop.get_item("C").name == "new"
    assert shop.level("C", "back").on_hand == 1
    with pytest.raises(ItemNotEmpty):
        shop.execute(
            [
                calls.ship({"C": 1}, location="back"),
                calls.delete_item("C"),
                calls.put_item("C", name="third"),
                calls.receive({"C": 4}, location="back"),
                calls.delete_item("C"),
            ]
        )
    assert shop.get_item("C").name == "new"
    assert shop.level("C", "back").on_hand == 1


def test_a_level_emptied_within_a_command_lets_its_location_go(shop: CheckedStore) -> None:
    shop.transfer({"A": 2}, "main", "back")
    shop.execute([calls.transfer({"A": 2}, "back", "main"), calls.delete_location("back")])
    assert [place.name for place in shop.list_locations()] == ["main", "quarantine"]


def test_what_the_ops_do_not_say_is_said_for_all(shop: CheckedStore) -> None:
    shop.execute(
        [
            calls.ship({"A": 1}, reason="sold", reference="own"),
            calls.receive({"B": 1}),
        ],
        reason="returned",
        reference="swap-1",
    )
    first, second = list(shop.ledger())[-2:]
    assert (first.reason, first.reference) == ("sold", "own")
    assert (second.reason, second.reference) == ("returned", "swap-1")
    assert len(shop.ledger(reference="own")) == 1
    assert len(shop.ledger(reference="swap-1")) == 1


def test_execute_takes_calls_without_keys() -> None:
    with pytest.raises(InvalidRequest):
        calls.execute([{"A": 1}])  # type: ignore[list-item]
    with pytest.raises(InvalidRequest):
        calls.execute([calls.receive({"A": 1}, idempotency_key="k")])
    with pytest.raises(InvalidRequest):
        calls.execute([])


def test_the_lines_of_all_operations_count() -> None:
    half = {f"{number}": 1 for number in range(2_500)}
    calls.execute([calls.receive(half), calls.ship(half)])
    with pytest.raises(TooManyLines):
        calls.execute([calls.receive(half), calls.ship(half), calls.adjust("A", 1)])
