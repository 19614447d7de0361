"""resolve(key): what became of a command whose answer was lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from inventory_kit import DAY_US, CheckedStore, Clock, Log

from distinv.errors import InsufficientStock, OutcomeUnknown, UnknownItem
from distinv.inventory import calls
from distinv.inventory.commands import session_key
from distinv.inventory.queries import Fate
from distinv.inventory.store import InventoryStore
from distinv.inventory.values import Resolution
from distinv.model import Receipt


def ask(log: Log, key: str) -> Resolution:
    question = calls.resolve(key)
    return question.value(log.machine.query(question.encode()))


@pytest.fixture
def log() -> Log:
    log = Log()
    log.send(log.open(99), 1, calls.put_item("A"))
    return log


def test_every_fate_of_a_number(log: Log) -> None:
    session = log.open()
    log.send(session, 1, calls.receive({"A": 1}), lowest=1)
    log.send(session, 2, calls.receive({"A": 1}), lowest=2)
    log.send(session, 3, calls.ship({"A": 9}), lowest=2)
    log.send(session, 4, b"", lowest=2)
    fates = [ask(log, session_key(session, number)).fate for number in range(7)]
    assert fates == [
        Fate.UNKNOWN,
        Fate.DROPPED,
        Fate.DECIDED,
        Fate.DECIDED,
        Fate.DECIDED,
        Fate.UNDECIDED,
        Fate.UNDECIDED,
    ]
    receipt = ask(log, session_key(session, 2)).conclude()
    assert isinstance(receipt, Receipt)
    assert (receipt.seq, receipt.levels[0].on_hand) == (3, 2)
    assert receipt.idempotency_key == session_key(session, 2)
    refusal = ask(log, session_key(session, 3)).conclude()
    assert isinstance(refusal, InsufficientStock)
    assert (refusal.seq, refusal.shortages[0].requested) == (4, 9)
    assert ask(log, session_key(session, 4)).conclude() is None
    for number in (0, 1, 5):
        with pytest.raises(OutcomeUnknown) as caught:
            ask(log, session_key(session, number)).conclude()
        assert caught.value.idempotency_key == session_key(session, number)


def test_closing_the_session_decides_what_was_undecided(log: Log) -> None:
    session = log.open()
    log.send(session, 1, calls.receive({"A": 1}))
    undecided = ask(log, session_key(session, 2))
    assert (undecided.fate, undecided.session) == (Fate.UNDECIDED, session)
    log.close(undecided.session)
    assert ask(log, session_key(session, 2)).conclude() is None
    assert log.send(session, 2, calls.receive({"A": 1})).kind == "expired"
    assert isinstance(ask(log, session_key(session, 1)).conclude(), Receipt)
    log.now_us += DAY_US
    log.open(7)
    for number in (1, 2):
        assert ask(log, session_key(session, number)).fate is Fate.UNKNOWN


def test_explicit_keys(shop: CheckedStore) -> None:
    receipt = shop.ship({"A": 1}, idempotency_key="order-7")
    shop.ship({"A": 1})
    assert shop.resolve("order-7") == evolve(receipt, replayed=True)
    assert shop.resolve("order-8") is None
    with pytest.raises(UnknownItem):
        shop.ship({"NOPE": 1}, idempotency_key="order-8")
    assert shop.resolve("order-8") is None
    shop.now.now_us += 7 * DAY_US
    shop.put_item("A")
    assert shop.resolve("order-7") is None


def test_a_store_resolves_the_last_number_of_an_earlier_session(tmp_path: Path) -> None:
    clock = Clock()
    with InventoryStore(tmp_path / "store.db", clock=clock) as store:
        store.put_item("A")
        receipt = store.receive({"A": 1})
        assert store.resolve(receipt.idempotency_key or "") == receipt
        with pytest.raises(UnknownItem) as refused:
            store.ship({"NOPE": 1})
    session, _, _ = (receipt.idempotency_key or "").partition(":")
    with InventoryStore(tmp_path / "store.db", clock=clock) as store:
        found = store.resolve(f"{session}:3")
        assert isinstance(found, UnknownItem)
        assert found.seq == refused.value.seq
        with pytest.raises(OutcomeUnknown):
            store.resolve(f"{session}:2")
        assert store.resolve(f"{session}:4") is None
        with pytest.raises(OutcomeUnknown):
            store.resolve(session_key(77, 1))


def test_a_store_that_resolves_its_own_next_number_goes_on_in_a_new_session() -> None:
    with InventoryStore() as store:
        store.put_item("A")
        first = store.receive({"A": 1}).idempotency_key or ""
        session, _, number = first.partition(":")
        assert store.resolve(f"{session}:{int(number) + 1}") is None
        second = store.receive({"A": 1}).idempotency_key or ""
        assert not second.startswith(session)


def test_a_store_reopens_its_session_after_a_quiet_day() -> None:
    clock = Clock()
    with InventoryStore(clock=clock) as store:
        store.put_item("A")
        clock.now_us += 2 * DAY_US
        before = store.receive({"A": 1})
        assert before.seq == 2
        clock.now_us -= DAY_US
        assert store.receive({"A": 1}).at == before.at, "time does not go back"
