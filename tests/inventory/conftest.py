"""Fixtures of the inventory's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from inventory_kit import CheckedStore


@pytest.fixture
def store() -> Iterator[CheckedStore]:
    """An empty store in memory that checks itself."""
    with CheckedStore() as opened:
        yield opened


@pytest.fixture
def shop(store: CheckedStore) -> CheckedStore:
    """A and B in stock, C without any; `back` beside `main`, and `quarantine`, not sellable."""
    for sku in "ABC":
        store.put_item(sku)
    store.put_location("back")
    store.put_location("quarantine", sellable=False)
    store.receive({"A": 10, "B": 5})
    return store
