"""Each stock command: what it does, what it refuses, and that a refusal does nothing.

`CheckedStore` asserts all invariants around every command.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from inventory_kit import START_US, CheckedStore, Log, outcome

from distinv.config import Limits
from distinv.errors import (
    InsufficientStock,
    InvalidLocation,
    InvalidQuantity,
    InvalidRequest,
    ItemDiscontinued,
    StaleVersion,
    UnknownItem,
    UnknownLocation,
)
from distinv.inventory import calls
from distinv.inventory.commands import (
    Accepted,
    Command,
    LineRow,
    Receive,
    Refused,
    encode_command,
)
from distinv.model import Level, Line, Receipt, Shortage

Move = Callable[[CheckedStore, Any], Any]

MOVES: list[Move] = [
    lambda store, lines: store.receive(lines),
    lambda store, lines: store.ship(lines),
    lambda store, lines: store.purchase(lines),
    lambda store, lines: store.adjust(lines),
    lambda store, lines: store.transfer(lines, "main", "back"),
]
every_move = pytest.mark.parametrize(
    "move", MOVES, ids=["receive", "ship", "purchase", "adjust", "transfer"]
)


def on_hand(store: CheckedStore, sku: str, location: str = "main") -> int:
    return store.level(sku, location).on_hand


# --- what they do -----------------------------------------------------------------------------


def test_a_receipt_tells_seq_time_levels_and_key(store: CheckedStore) -> None:
    store.put_item("A")
    receipt = store.receive({"A": 100})
    assert receipt.seq == 2
    assert receipt.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert (receipt.at.timestamp()) * 1_000_000 == START_US
    assert receipt.levels == (Level("A", "main", 100, version=2),)
    assert receipt.levels[0].available == 100
    assert receipt.levels[0].as_of == 2
    assert receipt.idempotency_key is not None
    assert not receipt.replayed


def test_receive_adds_and_ship_takes(shop: CheckedStore) -> None:
    shop.receive({"A": 3, "C": 1})
    shop.ship({"A": 13})
    assert [on_hand(shop, sku) for sku in "ABC"] == [0, 5, 1]


def test_purchase_is_a_ship_with_reason_sold(shop: CheckedStore) -> None:
    shop.purchase({"A": 1})
    shop.ship({"A": 1})
    shop.purchase({"A": 1}, reason="damaged")
    reasons = [entry.reason for entry in shop.ledger(sku="A")]
    kinds = [entry.kind for entry in shop.ledger(sku="A")]
    assert reasons == ["received", "sold", "other", "damaged"]
    assert kinds == ["receive", "ship", "ship", "ship"]


def test_adjust_takes_a_sku_and_a_delta_or_signed_lines(shop: CheckedStore) -> None:
    shop.adjust("A", -4)
    shop.adjust({"A": 1, "B": -5})
    assert (on_hand(shop, "A"), on_hand(shop, "B")) == (7, 0)


def test_transfer_moves_between_locations(shop: CheckedStore) -> None:
    receipt = shop.transfer({"A": 4, "B": 5}, "main", "back")
    assert [(level.sku, level.location, level.on_hand) for level in receipt.levels] == [
        ("A", "main", 6),
        ("A", "back", 4),
        ("B", "main", 0),
        ("B", "back", 5),
    ]


def test_lines_may_name_their_own_location(shop: CheckedStore) -> None:
    shop.receive([Line("A", 1), Line("A", 2, "back"), Line("B", 3, "main")], location="quarantine")
    assert on_hand(shop, "A", "quarantine") == 1
    assert on_hand(shop, "A", "back") == 2
    assert on_hand(shop, "B") == 8
    shop.receive(Line("A", 1, "back"))
    assert on_hand(shop, "A", "back") == 3


def test_lines_of_one_level_are_summed_before_they_are_checked(shop: CheckedStore) -> None:
    receipt = shop.ship([Line("A", 4), Line("B", 1), Line("A", 6, "main")])
    assert [(level.sku, level.on_hand) for level in receipt.levels] == [("A", 0), ("B", 4)]
    with pytest.raises(InsufficientStock) as caught:
        shop.ship([Line("B", 2), Line("B", 3)])
    assert caught.value.shortages == (Shortage("B", "main", 5, 4),)
    # -20 by itself would fall short
    shop.adjust([Line("B", -20), Line("B", 20)])
    assert on_hand(shop, "B") == 4


def test_a_shipment_may_take_the_last_unit_and_no_more(shop: CheckedStore) -> None:
    shop.ship({"B": 5})
    with pytest.raises(InsufficientStock):
        shop.ship({"B": 1})


def test_a_discontinued_item_may_still_be_sold(shop: CheckedStore) -> None:
    shop.put_item("A", discontinued=True)
    with pytest.raises(ItemDiscontinued):
        shop.receive({"B": 1, "A": 1})
    shop.ship({"A": 1})
    shop.put_item("A", discontinued=False)
    shop.receive({"A": 1})


def test_a_place_that_is_not_sellable_ships_nothing_but_adjusts_and_transfers(
    shop: CheckedStore,
) -> None:
    shop.receive({"A": 5}, location="quarantine")
    with pytest.raises(InvalidLocation) as caught:
        shop.ship({"A": 1}, location="quarantine")
    assert caught.value.seq == shop.seq
    shop.adjust("A", -1, location="quarantine")
    shop.transfer({"A": 4}, "quarantine", "main")
    assert on_hand(shop, "A") == 14


# --- set_on_hand ------------------------------------------------------------------------------


def test_set_on_hand_compares_the_version(shop: CheckedStore) -> None:
    level = shop.level("A")
    shop.set_on_hand("A", 7, if_version=level.version)
    with pytest.raises(StaleVersion) as caught:
        shop.set_on_hand("A", 8, if_version=level.version)
    assert caught.value.current == shop.level("A")
    assert on_hand(shop, "A") == 7


def test_set_on_hand_compares_on_hand(shop: CheckedStore) -> None:
    shop.set_on_hand("A", 12, if_on_hand=10)
    with pytest.raises(StaleVersion) as caught:
        shop.set_on_hand("A", 8, if_on_hand=10)
    current = caught.value.current
    assert isinstance(current, Level)
    assert current.on_hand == 12


def test_set_on_hand_by_force_to_nothing_and_on_a_level_never_named(shop: CheckedStore) -> None:
    shop.set_on_hand("A", 0, force=True)
    shop.set_on_hand("C", 3, location="back", if_version=0)
    assert (on_hand(shop, "A"), on_hand(shop, "C", "back")) == (0, 3)


def test_setting_what_is_there_counts_as_a_change(shop: CheckedStore) -> None:
    receipt = shop.set_on_hand("A", 10, if_on_hand=10)
    assert receipt.levels[0].version == receipt.seq
    assert [entry.delta for entry in shop.ledger(sku="A")] == [10, 0]


@pytest.mark.parametrize(
    "conditions",
    [{}, {"force": False}, {"force": True, "if_version": 1}, {"if_version": 1, "if_on_hand": 1}],
)
def test_set_on_hand_needs_exactly_one_condition(
    shop: CheckedStore, conditions: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest):
        calls.set_on_hand("A", 1, **conditions)


# --- refusals ---------------------------------------------------------------------------------


@every_move
def test_an_unknown_item_is_refused(shop: CheckedStore, move: Move) -> None:
    with pytest.raises(UnknownItem, match="NOPE"):
        move(shop, {"A": 1, "NOPE": 1})


def test_a_sku_is_kept_as_given(shop: CheckedStore) -> None:
    with pytest.raises(UnknownItem):
        shop.ship({"a": 1})
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    shop.put_item(composed)
    shop.put_item(decomposed)
    shop.receive({composed: 1})
    assert (on_hand(shop, composed), on_hand(shop, decomposed)) == (1, 0)


def test_an_unknown_location_is_refused(shop: CheckedStore) -> None:
    commands: list[Callable[[], Receipt]] = [
        lambda: shop.receive({"A": 1}, location="nowhere"),
        lambda: shop.ship({"A": 1}, location="nowhere"),
        lambda: shop.adjust("A", 1, location="nowhere"),
        lambda: shop.set_on_hand("A", 1, location="nowhere", force=True),
        lambda: shop.transfer({"A": 1}, "nowhere", "main"),
        lambda: shop.transfer({"A": 1}, "main", "nowhere"),
    ]
    for command in commands:
        with pytest.raises(UnknownLocation) as caught:
            command()
        assert caught.value.seq == shop.seq


def test_all_shortages_are_told(shop: CheckedStore) -> None:
    wanted = {"A": 11, "B": 5, "C": 1}
    expected = (Shortage("A", "main", 11, 10), Shortage("C", "main", 1, 0))
    commands: list[Callable[[], Receipt]] = [
        lambda: shop.ship(wanted),
        lambda: shop.purchase(wanted),
        lambda: shop.transfer(wanted, "main", "back"),
        lambda: shop.adjust({sku: -quantity for sku, quantity in wanted.items()}),
    ]
    for command in commands:
        with pytest.raises(InsufficientStock) as caught:
            command()
        assert caught.value.shortages == expected


def test_shortages_come_in_the_order_of_the_lines(shop: CheckedStore) -> None:
    with pytest.raises(InsufficientStock, match="and 1 more") as caught:
        shop.ship({"C": 1, "B": 6})
    assert [shortage.sku for shortage in caught.value.shortages] == ["C", "B"]


def test_a_level_stays_within_63_bits() -> None:
    limits = Limits(level_max=15)
    with CheckedStore(limits=limits) as store:
        store.put_item("A")
        store.put_location("back")
        store.receive({"A": 15})
        store.receive({"A": 1}, location="back")
        commands: list[Callable[[], Receipt]] = [
            lambda: store.receive({"A": 1}),
            lambda: store.adjust("A", 1),
            lambda: store.transfer({"A": 1}, "back", "main"),
        ]
        for command in commands:
            with pytest.raises(InvalidQuantity) as caught:
                command()
            assert caught.value.seq == store.seq


def test_the_largest_level_is_kept_exactly() -> None:
    log = Log(limits=Limits(quantity_max=2**63 - 1))
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    everything = encode_command(Command((Receive((LineRow("A", 2**63 - 1),), "main"),)))
    assert isinstance(outcome(log.send(session, 2, everything)), Accepted)
    log.machine.flush()
    refused = outcome(log.send(session, 3, calls.receive({"A": 1})))
    assert isinstance(refused, Refused)
    assert refused.code == "invalid_quantity"
    ask = calls.level("A")
    assert ask.value(log.machine.query(ask.encode())).available == 2**63 - 1
    assert log.machine.problems() == []


def test_as_many_lines_as_allowed(store: CheckedStore) -> None:
    skus = [f"{number:05}" for number in range(5_000)]
    store.execute([calls.put_item(sku) for sku in skus])
    store.receive(dict.fromkeys(skus, 2))
    receipt = store.ship(dict.fromkeys(reversed(skus), 1))
    assert len(receipt.levels) == 5_000
    assert receipt.levels[0].sku == "04999"
    assert all(level.on_hand == 1 for level in receipt.levels)


def test_the_ledger_keeps_what_was_said(shop: CheckedStore) -> None:
    occurred = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    shop.ship(
        {"A": 6}, reason="sold", reference="536365", note="gift", occurred_at=occurred, timeout=1.0
    )
    (entry,) = shop.ledger(reference="536365")
    assert (entry.delta, entry.on_hand_after, entry.actor) == (-6, 4, "till")
    assert (entry.note, entry.occurred_at, entry.seq) == ("gift", occurred, shop.seq)
