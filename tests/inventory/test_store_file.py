"""A store in a file: crashes, restarts, and files that are no stores."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import msgspec
import pytest
from inventory_kit import BALLOT, VOTERS, Clock, Log

from distinv.config import Limits
from distinv.entry import NO_BALLOT, EntryKind, Position, Voter, VoterSet
from distinv.errors import InsufficientStock, StorageError
from distinv.inventory import calls
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import OLDEST_READ, SCHEMA_VERSION
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


@pytest.mark.parametrize(
    ("version", "way"),
    [
        (SCHEMA_VERSION + 1, "later release.*upgrade distinv here"),
        (OLDEST_READ - 1, "older version.*open it with that version"),
    ],
)
def test_another_version_says_the_way_forward(tmp_path: Path, version: int, way: str) -> None:
    path = tmp_path / "store.db"
    InventoryStore(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    for _ in range(2):
        with pytest.raises(StorageError, match=way):
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


# --- the voters ---------------------------------------------------------------------------------


def test_the_voters_in_force_are_kept_with_the_position(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    log = Log(StateMachine(path))
    assert log.machine.voters is None
    log.set_voters()
    session = log.open()
    assert log.machine.voters == (1, BALLOT, VOTERS)
    log.machine.flush()
    larger = VoterSet("shop", 5, (*VOTERS.voters, Voter(10, "d"), Voter(11, "e")))
    log.set_voters(larger)
    log.send(session, 1, calls.put_item("A"))
    assert log.machine.voters == (3, BALLOT, larger)
    log.machine.abandon()

    reopened = StateMachine(path)
    assert (reopened.position.index, reopened.voters) == (2, (1, BALLOT, VOTERS))
    log.replay(reopened)
    assert reopened.voters == (3, BALLOT, larger)
    reopened.close()
    reopened = StateMachine(path)
    assert reopened.voters == (3, BALLOT, larger)
    reopened.close()


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"anything", b"\x93\xa1\xff\x01\x90", b"\x91" * 9_999]
)
def test_voters_that_cannot_be_read_change_nothing(payload: bytes) -> None:
    log = Log()
    log.set_voters()
    log.append_payload(payload, EntryKind.VOTERS)
    assert log.machine.voters == (1, BALLOT, VOTERS)
    assert log.machine.position == log.entries[-1].position


def make_older(path: Path) -> None:
    """The file as version 1 wrote it: without the voters."""
    database = sqlite3.connect(path)
    (body,) = database.execute("SELECT body FROM state").fetchone()
    row = msgspec.msgpack.encode(msgspec.msgpack.decode(body)[:7])
    with database:
        database.execute("UPDATE state SET body = ?", (row,))
    database.execute("PRAGMA user_version = 1")
    database.close()


def test_a_file_from_before_voters_were_kept_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    log = Log(StateMachine(str(path)))
    log.set_voters()
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    first = log.send(session, 2, calls.receive({"A": 5}))
    before = log.machine.state_digest(), log.machine.digest(), log.machine.position
    log.machine.close()
    make_older(path)

    log.machine = StateMachine(str(path))
    machine = log.machine
    assert (machine.state_digest(), machine.digest(), machine.position) == before
    assert machine.voters is None
    assert machine.result(session, 2) == first.result
    machine.learn_voters(1, BALLOT, VOTERS)
    machine.close()
    log.machine = StateMachine(str(path))
    assert log.machine.voters == (1, BALLOT, VOTERS)
    log.send(session, 3, calls.receive({"A": 5}))
    fresh = StateMachine()
    log.replay(fresh)
    assert log.machine.state_digest() == fresh.state_digest()
    assert log.machine.problems() == []
    log.machine.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    database.close()


def test_a_damaged_state_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    log = busy_log(StateMachine(str(path)), 1)
    log.machine.close()
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE state SET body = x'93010203'")
    database.close()
    with pytest.raises(StorageError, match="damaged"):
        StateMachine(str(path))


# --- what is durable ----------------------------------------------------------------------------


def position_in_file(path: Path, copies: Path, *, log: bool = False) -> int:
    """The index that the database file holds, with or without its log; it must be sound."""
    copy = copies / "copy.db"
    shutil.copy(path, copy)
    if log:
        shutil.copy(f"{path}-wal", f"{copy}-wal")
    machine = StateMachine(str(copy))
    assert machine.problems() == []
    index = machine.position.index
    machine.close()
    return index


def test_a_checkpoint_brings_everything_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    log = busy_log(StateMachine(str(path)), 5)
    assert position_in_file(path, tmp_path) == 0
    checkpoint = log.machine.checkpointer()
    assert checkpoint() == log.machine.position
    assert position_in_file(path, tmp_path) == log.machine.position.index
    assert log.machine.checkpointer()() == log.machine.position
    log.machine.close()


def test_checkpoints_beside_the_commits_keep_the_write_ahead_log_short(tmp_path: Path) -> None:
    """The story: copied by the commit that was one too many it stopped the loop for a tenth of a
    second; copied beside it, it never began anew, since a transaction was always open."""
    path = tmp_path / "store.db"
    log = Log(StateMachine(str(path), Limits(store_checkpoint_rows=100)))
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    due, longest = 0, 0
    for number in range(2, 1_000):
        log.send(session, number, calls.receive({"A": 1}), lowest=number)
        if number % 5 == 0:
            log.machine.flush()
        if log.machine.checkpoint_due:
            due += 1
            checkpoint = log.machine.checkpointer()
            assert not log.machine.checkpoint_due
            log.send(session, number, calls.receive({"A": 1}))  # a duplicate: applied meanwhile
            assert checkpoint() == log.entries[-2].position
        longest = max(longest, Path(f"{path}-wal").stat().st_size)
    assert 10 < due < 60
    assert longest < 1_000_000  # some 30 pages would do; without the checkpoints it is 7 MB
    assert log.machine.problems() == []
    log.machine.close()
    assert not StateMachine().checkpoint_due


def test_keys_are_forgotten_together_with_their_place_in_the_log(tmp_path: Path) -> None:
    """What forgets them is in the transaction of its entry: a crash before the flush undoes it."""
    path = str(tmp_path / "store.db")
    limits = Limits(keys_kept_us=1_000_000)
    log = Log(StateMachine(path, limits))
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    log.send(session, 2, calls.receive({"A": 9}, idempotency_key="k"))
    log.machine.flush()
    before = log.machine.state_digest(), log.machine.position
    log.now_us += 2_000_000
    log.send(session, 3, calls.receive({"A": 1}, idempotency_key="k"))
    after = log.machine.state_digest()
    log.machine.abandon()
    reopened = StateMachine(path, limits)
    assert (reopened.state_digest(), reopened.position) == before
    assert reopened.problems() == []
    log.replay(reopened)
    assert reopened.state_digest() == after
    reopened.close()


def test_commands_behind_the_call_are_not_in_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    log = busy_log(StateMachine(str(path)), 5)
    checkpoint, position = log.machine.checkpointer(), log.machine.position
    later = log.machine.checkpointer
    log.open(2)
    second = later()
    log.open(3)
    assert second() == log.entries[-2].position
    assert checkpoint() == log.entries[-2].position  # known by now; it never falls
    assert position.index < position_in_file(path, tmp_path) < log.machine.position.index
    log.machine.close()


def test_while_somebody_reads_an_older_state_the_answer_is_older(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    log = busy_log(StateMachine(str(path)), 5)
    first = log.machine.checkpointer()()
    session = log.open(2)
    log.machine.flush()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM state").fetchall()
    log.send(session, 1, calls.receive({"A": 5}))
    assert log.machine.checkpointer()() == first
    assert position_in_file(path, tmp_path, log=True) == log.machine.position.index
    reader.close()
    assert log.machine.checkpointer()() == log.machine.position
    assert position_in_file(path, tmp_path) == log.machine.position.index
    log.machine.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_is_never_ahead_of_the_file(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "store.db"
    chance = Random(seed)
    log = Log(StateMachine(str(path)))
    session = log.open()
    log.send(session, 1, calls.put_item("A"))
    readers: list[sqlite3.Connection] = []
    waiting: list[Callable[[], Position]] = []
    answers = [0, 0]
    for number in range(2, 80):
        log.send(session, number, calls.receive({"A": number}), lowest=number)
        step = chance.randrange(6)
        if step == 0:
            waiting.append(log.machine.checkpointer())
        elif step == 1:
            log.machine.flush()
        elif step == 2:
            readers.append(sqlite3.connect(path, isolation_level=None))
            readers[-1].execute("BEGIN")
            readers[-1].execute("SELECT * FROM state").fetchall()
        elif step == 3 and readers:
            readers.pop(chance.randrange(len(readers))).close()
        elif step == 4 and waiting:
            answers.append(waiting.pop(chance.randrange(len(waiting)))().index)
            assert answers[-1] >= answers[-2]
            assert position_in_file(path, tmp_path, log=True) >= answers[-1]
            if answers[-1] > answers[-2]:  # one that stopped half-way needs its log
                assert position_in_file(path, tmp_path) >= answers[-1]
    assert answers[-1] > 0
    for reader in readers:
        reader.close()
    log.machine.close()


def test_in_memory_everything_applied_counts() -> None:
    log = busy_log(StateMachine(), 5)
    assert log.machine.checkpointer()() == log.machine.position


def test_a_failed_sync_is_not_made_good_by_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = busy_log(StateMachine(str(tmp_path / "store.db")), 5)
    one, two = log.machine.checkpointer(), log.machine.checkpointer()

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("distinv.inventory.file.os.fsync", fail)
        with pytest.raises(StorageError, match="cannot be synced"):
            one()
    with pytest.raises(StorageError, match="could not be synced before"):
        two()
    with pytest.raises(StorageError):
        log.open(2)
    log.machine.close()


def test_threads_find_a_closed_store_closed(tmp_path: Path) -> None:
    log = busy_log(StateMachine(str(tmp_path / "store.db")), 5)
    checkpoint, digest = log.machine.checkpointer(), log.machine.digest_reader()
    log.machine.close()
    for call in (checkpoint, digest):
        with pytest.raises(StorageError, match="closed"):
            call()


def test_the_file_is_given_back_when_the_last_thread_is_done(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    log = busy_log(StateMachine(path), 5)
    file = log.machine._file
    assert file is not None
    with file.in_use():
        log.machine.close()
        with pytest.raises(StorageError, match="in use"):
            StateMachine(path)
    StateMachine(path).close()


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
