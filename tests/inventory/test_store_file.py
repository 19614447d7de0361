"""A store in a file: crashes, restarts, and files that are no stores."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from inventory_kit import BALLOT, Clock, Log

from distinv.entry import NO_BALLOT
from distinv.errors import InsufficientStock, StorageError
from distinv.inventory import calls
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import SCHEMA_VERSION
from distinv.inventory.store import InventoryStore


def busy_log(machine: StateMachine, flush_every: int) -> Log:
    """Commands of every sort, flushed now and then."""
    log = Log(machine)
    session = log.open()
    sent: list[calls.Call[Any] | bytes] = [
        calls.put_item("A", attributes={"x": 1}),
        calls.put_item("B"),
        calls.put_location("back", sellable=False),
        calls.receive({"A": 10, "B": 4}, reference="PO-1"),
        calls.ship({"A": 11}),
        calls.ship({"A": 1}, idempotency_key="k"),
        b"",
        calls.transfer({"A": 3}, "main", "back"),
        calls.ship({"A": 1}, idempotency_key="k"),
        calls.execute([calls.ship({"B": 4}), calls.delete_item("B")]),
        calls.execute([calls.put_item("C"), calls.ship({"C": 1})]),
        calls.set_on_hand("A", 8, if_on_hand=6),
    ]
    for number, call in enumerate(sent, 1):
        log.now_us += 1_000
        log.send(session, number, call, lowest=number - 2)
        if number % flush_every == 0:
            machine.flush()
    return log


@pytest.mark.parametrize("flush_every", [1, 2, 3, 5, 7, 100])
def test_what_was_not_flushed_is_lost_with_its_position_and_applied_again(
    tmp_path: Path, flush_every: int
) -> None:
    path = str(tmp_path / "store.db")
    log = busy_log(StateMachine(path), flush_every)
    before = log.machine.state_digest(), log.machine.digest(), log.machine.position
    log.machine.abandon()
    with pytest.raises(StorageError):
        log.machine.flush()

    reopened = StateMachine(path)
    durable = reopened.position.index
    assert durable == (0 if flush_every == 100 else 1 + 12 // flush_every * flush_every)
    assert reopened.position == (
        log.entries[durable - 1].position if durable else StateMachine().position
    )
    assert reopened.problems() == []
    results = log.replay(reopened)
    assert (reopened.state_digest(), reopened.digest(), reopened.position) == before
    assert reopened.problems() == []

    fresh = StateMachine()
    everything = log.replay(fresh)
    assert everything[len(everything) - len(results) :] == results
    assert fresh.state_digest() == before[0]
    reopened.close()


def test_close_flushes_and_may_be_called_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    log = busy_log(StateMachine(path), 100)
    digest = log.machine.state_digest()
    log.machine.close()
    log.machine.close()
    for use in (log.machine.flush, log.machine.state_digest, log.machine.digest):
        with pytest.raises(StorageError):
            use()
    reopened = StateMachine(path)
    assert reopened.state_digest() == digest
    assert reopened.position == log.entries[-1].position
    assert reopened.position.ballot == BALLOT
    assert reopened.time_us == log.now_us
    assert reopened.last_number(log.entries[0].index << 12) == 12
    reopened.close()


def test_an_embedded_store_has_everything_it_answered(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    clock = Clock()
    store = InventoryStore(path, clock=clock)
    store.put_item("A")
    receipt = store.receive({"A": 3}, idempotency_key="k")
    with pytest.raises(InsufficientStock):
        store.ship({"A": 4})
    store.machine.abandon()
    with InventoryStore(path, clock=clock) as store:
        assert store.seq == 3
        assert store.level("A").on_hand == 3
        assert store.receive({"A": 3}, idempotency_key="k").seq == receipt.seq
        assert store.machine.position.ballot == NO_BALLOT
        assert store.machine.problems() == []


def test_one_process_at_a_time_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with InventoryStore(path), pytest.raises(StorageError, match="in use"):
        InventoryStore(path)
    InventoryStore(path).close()


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        InventoryStore(tmp_path / "missing" / "store.db")
    with pytest.raises(StorageError):
        InventoryStore(tmp_path)
    text = tmp_path / "text.db"
    text.write_text("This is no database, but it is long enough to be looked at." * 20)
    with pytest.raises(StorageError, match="opened"):
        InventoryStore(text)
    other = tmp_path / "other.db"
    database = sqlite3.connect(other)
    database.execute("CREATE TABLE x (y)")
    database.close()
    with pytest.raises(StorageError, match="not an inventory store"):
        InventoryStore(other)


@pytest.mark.parametrize(("step", "word"), [(1, "newer"), (-1, "older")])
def test_another_version_says_the_way_forward(tmp_path: Path, step: int, word: str) -> None:
    path = tmp_path / "store.db"
    InventoryStore(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + step}")
    database.close()
    for _ in range(2):
        with pytest.raises(StorageError, match=f"{word} version.*open it with that version"):
            InventoryStore(path)


def test_after_a_failure_nothing_goes_on(tmp_path: Path) -> None:
    store = InventoryStore(tmp_path / "store.db")
    store.put_item("A")
    store.machine._database.execute("DROP TABLE ledger")
    with pytest.raises(StorageError, match="failed"):
        store.receive({"A": 1})
    with pytest.raises(StorageError):
        store.level("A")
    with pytest.raises(StorageError):
        store.machine.flush()
    store.close()


def test_a_digest_is_read_in_another_thread_while_the_store_goes_on(tmp_path: Path) -> None:
    log = busy_log(StateMachine(str(tmp_path / "store.db")), 100)
    expected = log.machine.digest()
    read = log.machine.digest_reader()
    session = log.open(2)
    log.send(session, 1, calls.receive({"A": 5}))
    found = []
    thread = Thread(target=lambda: found.append(read()))
    thread.start()
    thread.join()
    assert found == [expected]
    assert log.machine.digest() != expected
    log.machine.close()


def test_threads_take_turns() -> None:
    with InventoryStore() as store:
        store.put_item("A")
        threads = [
            Thread(target=lambda: [store.receive({"A": 1}) for _ in range(20)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.level("A").on_hand == 80
        assert store.machine.problems() == []
