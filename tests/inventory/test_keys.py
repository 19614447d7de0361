"""Explicit idempotency keys: each takes effect at most once."""

from __future__ import annotations

import pytest
from attrs import evolve
from inventory_kit import DAY_US, CheckedStore, Log, outcome

from distinv.config import Limits
from distinv.errors import IdempotencyKeyReused, InsufficientStock, TooManyKeys
from distinv.inventory import calls
from distinv.inventory.commands import Accepted, Refused
from distinv.model import Line


def test_the_same_key_gives_the_first_receipt_again(shop: CheckedStore) -> None:
    first = shop.ship({"A": 2, "B": 1}, idempotency_key="order-1")
    shop.ship({"A": 3})
    again = shop.ship(
        [Line("B", 1, "main"), Line("A", 1), Line("A", 1)], idempotency_key="order-1", note="retry"
    )
    assert again == evolve(first, replayed=True)
    assert not first.replayed
    assert shop.level("A").on_hand == 5


def test_a_replayed_put_item_gives_the_first_answer(store: CheckedStore) -> None:
    first = store.put_item("A", name="one", idempotency_key="k")
    store.put_item("A", name="two")
    assert store.put_item("A", name="one", idempotency_key="k") == first
    assert store.get_item("A").name == "two"
    place = store.put_location("back", idempotency_key="l")
    assert store.put_location("back", idempotency_key="l") == place


def test_another_payload_is_refused(shop: CheckedStore) -> None:
    first = shop.ship({"A": 2}, idempotency_key="k")
    with pytest.raises(IdempotencyKeyReused) as caught:
        shop.ship({"A": 3}, idempotency_key="k")
    assert caught.value.original_seq == first.seq
    assert caught.value.seq == first.seq + 1
    with pytest.raises(IdempotencyKeyReused):
        shop.purchase({"A": 2}, idempotency_key="k")


def test_a_refused_attempt_may_be_tried_again(shop: CheckedStore) -> None:
    for _ in range(2):
        with pytest.raises(InsufficientStock):
            shop.ship({"C": 1}, idempotency_key="k")
    shop.receive({"C": 1})
    receipt = shop.ship({"C": 1}, idempotency_key="k")
    assert not receipt.replayed
    assert shop.ship({"C": 1}, idempotency_key="k").replayed


def test_keys_of_every_form_of_execute(shop: CheckedStore) -> None:
    ops = [
        calls.put_item("D"),
        calls.receive({"D": 4}),
        calls.ship({"D": 1}),
        calls.set_on_hand("A", 10, if_on_hand=10),
        calls.delete_item("C"),
    ]
    first = shop.execute(ops, idempotency_key="k")
    shop.receive({"D": 10})
    assert shop.execute(ops, idempotency_key="k") == evolve(first, replayed=True)


def test_keys_are_bounded_and_never_forgotten_early() -> None:
    with CheckedStore(limits=Limits(keys_max=2)) as store:
        store.put_item("A")
        store.receive({"A": 1}, idempotency_key="1")
        store.receive({"A": 1}, idempotency_key="2")
        with pytest.raises(TooManyKeys):
            store.receive({"A": 1}, idempotency_key="3")
        store.receive({"A": 1})
        assert store.receive({"A": 1}, idempotency_key="1").replayed
        store.now.now_us += 7 * DAY_US - 1
        with pytest.raises(TooManyKeys):
            store.receive({"A": 1}, idempotency_key="3")
        assert store.receive({"A": 1}, idempotency_key="2").replayed


def test_keys_are_kept_for_seven_days_of_the_logs_time() -> None:
    with CheckedStore(limits=Limits(keys_max=2)) as store:
        store.put_item("A")
        store.receive({"A": 1}, idempotency_key="1")
        store.now.now_us += 1
        store.receive({"A": 1}, idempotency_key="2")
        store.now.now_us += 7 * DAY_US - 1
        assert not store.receive({"A": 2}, idempotency_key="1").replayed
        assert store.receive({"A": 1}, idempotency_key="2").replayed
        store.now.now_us += 7 * DAY_US
        store.receive({"A": 5}, idempotency_key="2")
        assert store.level("A").on_hand == 9


def test_a_quiet_week_is_forgotten_in_small_steps() -> None:
    limits = Limits(keys_forgotten=3)
    log = Log(limits=limits)
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    for number in range(10):
        log.send(session, 2 + number, calls.receive({"A": 1}, idempotency_key=f"{number}"))
    log.now_us += 8 * DAY_US
    session = log.open(2)
    # due, and not yet forgotten: it counts as forgotten all the same
    answer = outcome(log.send(session, 1, calls.receive({"A": 7}, idempotency_key="9")))
    assert isinstance(answer, Accepted)
    assert not answer.replayed
    for number in range(2, 6):
        log.send(session, number, calls.receive({"A": 1}))
    assert log.machine.problems() == []
    (count,) = log.machine._database.execute("SELECT count(*) FROM keys").fetchone()
    assert count == 1


def test_a_key_works_from_another_session_and_after_a_flush() -> None:
    log = Log()
    one, two = log.open(1), log.open(2)
    log.send(one, 1, calls.put_item("A"))
    first = outcome(log.send(one, 2, calls.receive({"A": 1}, idempotency_key="k")))
    assert isinstance(first, Accepted)
    log.machine.flush()
    again = outcome(log.send(two, 1, calls.receive({"A": 1}, idempotency_key="k")))
    assert isinstance(again, Accepted)
    assert (again.seq, again.time_us, again.levels) == (first.seq, first.time_us, first.levels)
    assert again.replayed
    other = outcome(log.send(two, 2, calls.receive({"A": 2}, idempotency_key="k")))
    assert isinstance(other, Refused)
    assert other.seq == log.machine.seq == 3
