"""The two digests: of the stock, which clusters compare, and of the state, which servers do."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inventory_kit import CheckedStore, Log

from distinv.inventory import calls
from distinv.inventory.digest import digest_of
from distinv.inventory.machine import StateMachine
from distinv.model import Line


def expected(stock: dict[str, int]) -> str:
    """As the definition says it."""
    pairs = sorted([sku, on_hand] for sku, on_hand in stock.items() if on_hand != 0)
    return sha256(json.dumps(pairs).encode()).hexdigest()[:16]


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 2**70)))
def test_the_digest_is_the_definitions(stock: dict[str, int]) -> None:
    assert digest_of(sorted((sku, n) for sku, n in stock.items() if n)) == expected(stock)


def test_of_nothing(store: CheckedStore) -> None:
    assert store.digest().value == expected({}) == "4f53cda18c2baa0c"
    assert store.digest().seq == 0


def test_locations_are_summed_and_zeros_left_out(shop: CheckedStore) -> None:
    shop.put_item("Tüte 85123A")
    shop.receive([Line("A", 5, "back"), Line("Tüte 85123A", 7), Line("C", 1)])
    shop.ship({"C": 1})
    digest = shop.digest()
    assert digest.value == expected({"A": 15, "B": 5, "C": 0, "Tüte 85123A": 7})
    assert digest.seq == shop.seq


def test_sums_beyond_63_bits(store: CheckedStore) -> None:
    store.put_item("A")
    store.put_location("back")
    store.machine._database.executemany(
        "INSERT INTO levels VALUES ('A', ?, ?, 0, 0, 1, 0)",
        [("main", 2**63 - 1), ("back", 2**63 - 1)],
    )
    assert store.digest().value == expected({"A": 2**64 - 2})
    assert store.available("A") == 2**64 - 2
    store.machine.abandon()


def test_the_reader_gives_the_same_digest(tmp_path: object) -> None:
    for path in (":memory:", f"{tmp_path}/store.db"):
        log = Log(StateMachine(path))
        session = log.open()
        log.send(session, 1, calls.put_item("A"))
        log.send(session, 2, calls.receive({"A": 3}))
        read = log.machine.digest_reader()
        assert read() == log.machine.digest()
        assert read().value == expected({"A": 3})
        log.machine.close()


def test_the_state_digest_does_not_depend_on_when_it_was_flushed() -> None:
    log = Log()
    often, seldom = StateMachine(), StateMachine()
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    log.send(session, 2, calls.put_location("back"))
    for number in range(3, 20):
        log.send(session, number, calls.receive({"A": 1}, idempotency_key=f"{number}"), number - 2)
        log.send(session, number, calls.receive({"A": 1}))
    log.close(session)
    for entry in log.entries:
        often.apply(entry)
        often.flush()
        often.state_digest()
        seldom.apply(entry)
    assert often.state_digest() == seldom.state_digest() == log.machine.state_digest()
    assert often.problems() == seldom.problems() == []


@pytest.mark.parametrize(
    "call",
    [
        calls.put_item("B"),
        calls.put_item("A", name="x"),
        calls.put_location("back"),
        calls.receive({"A": 1}),
        calls.receive({"A": 1}, idempotency_key="k"),
        calls.ship({"A": 1}),
        b"",
    ],
)
def test_every_change_changes_the_state_digest(call: calls.Call[object] | bytes) -> None:
    log = Log()
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    before = log.machine.state_digest()
    assert before == log.machine.state_digest()
    log.send(session, 2, call)
    assert log.machine.state_digest() != before
