"""The values users hold."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinv.errors import InvalidQuantity
from distinv.model import Item, Level, Page, Receipt, datetime_of

KILOGRAMS = Item("flour", unit="kg", scale=3)


@pytest.mark.parametrize(
    ("amount", "units"),
    [("1.25", 1250), ("1.250", 1250), ("-0.001", -1), ("0", 0), (2, 2000), ("1e2", 100_000)],
)
def test_to_units(amount: str | int, units: int) -> None:
    assert KILOGRAMS.to_units(amount) == units
    assert KILOGRAMS.to_units(Decimal(amount)) == units
    assert type(KILOGRAMS.to_units(amount)) is int


def test_from_units_shows_the_scale() -> None:
    assert str(KILOGRAMS.from_units(1250)) == "1.250"
    assert str(KILOGRAMS.from_units(-5)) == "-0.005"
    assert str(Item("pen").from_units(7)) == "7"


@pytest.mark.parametrize(
    "amount",
    [1.25, True, None, "0.0001", "1e-30", "1e30", "nan", "inf", "", "kg", Decimal("NaN")],
)
def test_what_is_no_exact_amount_is_refused(amount: Any) -> None:
    with pytest.raises(InvalidQuantity):
        KILOGRAMS.to_units(amount)


@pytest.mark.parametrize("quantity", [1.0, True, "1"])
def test_from_units_takes_ints(quantity: Any) -> None:
    with pytest.raises(InvalidQuantity):
        KILOGRAMS.from_units(quantity)


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_units_there_and_back(quantity: int, scale: int) -> None:
    item = Item("x", scale=scale)
    assert item.to_units(item.from_units(quantity)) == quantity


def test_available_is_derived() -> None:
    level = Level("A", "main", 94, 4, 10)
    assert level.available == 80
    assert "available=80" in repr(level)


def test_when_it_was_read_takes_no_part_in_equality() -> None:
    assert Level("A", "main", 1, as_of=3) == Level("A", "main", 1, as_of=9)
    assert Page((1,), None, 3) == Page((1,), None, 9)


def test_values_are_frozen_and_hashable() -> None:
    at = datetime(2010, 12, 1, tzinfo=UTC)
    assert len({Receipt(1, at), Receipt(1, at), Item("A", attributes={"x": 1})}) == 2
    with pytest.raises(AttributeError):
        Level("A", "main", 1).on_hand = 2  # type: ignore[misc]


def test_times_beyond_the_calendar_are_capped() -> None:
    assert datetime_of(10**18).year == 9999
    assert datetime_of(-(10**18)).year == 1
    assert datetime_of(1_000_001) == datetime(1970, 1, 1, 0, 0, 1, 1, tzinfo=UTC)
