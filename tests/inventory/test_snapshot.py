"""Snapshots: made while commands go on, believed only when sound, installed whole or not at all."""

from __future__ import annotations

import os
import shutil
import sqlite3
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest
from inventory_kit import BALLOT, VOTERS, Log, outcome

from distinv.entry import NO_BALLOT, NO_HASH, Position, SnapshotHead, VoterSet
from distinv.errors import StorageError
from distinv.inventory import calls, file
from distinv.inventory import snapshot as inventory_snapshot
from distinv.inventory.commands import Accepted
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import SCHEMA_VERSION
from distinv.inventory.snapshot import Snapshot, install_snapshot, look_at_snapshot

SKUS = [f"sku-{number:03}" for number in range(200)]
KEYED = calls.receive({"sku-000": 7}, idempotency_key="k")


def exchange_for(incoming: Path, store: Path, head: SnapshotHead) -> None:
    """What a server does with a snapshot that it has received."""
    look_at_snapshot(incoming, head)
    install_snapshot(incoming, store)


def shop(path: str = ":memory:") -> tuple[Log, int]:
    """A log whose machine has stock, keys, a closed session and an open one, whose id is told."""
    log = Log(StateMachine(path))
    log.set_voters()
    closed, session = log.open(1), log.open(2)
    log.send(closed, 1, calls.execute([calls.put_item(sku) for sku in SKUS]))
    log.close(closed)
    log.send(session, 1, calls.receive(dict.fromkeys(SKUS, 100), reference="PO-1"))
    log.send(session, 2, KEYED)
    log.send(session, 3, calls.ship({"sku-001": 101}))
    return log, session


def snapshot_of(log: Log, directory: Path) -> Snapshot:
    return log.machine.snapshot_writer(directory / "snapshot.sqlite3")()


def everything(snapshot: Snapshot) -> bytes:
    """All of it, in the pieces of a transfer."""
    pieces = []
    for offset in range(0, snapshot.size_bytes, 5_000):
        pieces.append(snapshot.read(offset, 5_000))
    assert snapshot.read(snapshot.size_bytes, 5_000) == b""
    return b"".join(pieces)


def replayed(log: Log, index: int) -> StateMachine:
    """What the log says the state at `index` is."""
    machine = StateMachine()
    log.replay(machine, index)
    return machine


def install(directory: Path, data: bytes, head: SnapshotHead) -> StateMachine:
    """As another server does, which keeps `directory`."""
    directory.mkdir(exist_ok=True)
    incoming = directory / "incoming.sqlite3"
    incoming.write_bytes(data)
    store = directory / "store.db"
    exchange_for(incoming, store, head)
    assert sorted(path.name for path in directory.iterdir()) == ["store.db", "store.db.lock"]
    return StateMachine(str(store))


# --- what it holds ------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [":memory:", "file"])
@pytest.mark.parametrize("receiver", [":memory:", "file"])
def test_a_snapshot_is_the_whole_state_at_its_position(
    tmp_path: Path, store: str, receiver: str
) -> None:
    log, session = shop(str(tmp_path / "store.db") if store == "file" else store)
    snapshot = snapshot_of(log, tmp_path)
    log.send(session, 4, calls.ship({"sku-002": 5}))
    head, data = snapshot.head, everything(snapshot)
    assert head == SnapshotHead(
        log.entries[-2].position,
        log.now_us,
        1,
        BALLOT,
        VOTERS,
        len(data),
        blake2b(data, digest_size=16).digest(),
    )
    if receiver == "file":
        machine = install(tmp_path / "other", data, head)
    else:
        machine = StateMachine.from_snapshot(data, head)
    assert machine.position == head.position
    assert machine.voters == (1, BALLOT, VOTERS)
    assert machine.state_digest() == replayed(log, head.position.index).state_digest()
    assert machine.problems() == []
    assert log.replay(machine)
    assert machine.state_digest() == log.machine.state_digest()
    assert machine.digest() == log.machine.digest()
    assert machine.problems() == []
    snapshot.close()
    machine.close()
    log.machine.close()


def test_a_retry_after_the_install_gets_its_recorded_answer(tmp_path: Path) -> None:
    log, session = shop(str(tmp_path / "store.db"))
    recorded = [log.machine.result(session, number) for number in (1, 2, 3)]
    closed = log.machine.session_of_nonce(1)
    snapshot = snapshot_of(log, tmp_path)
    log.machine.close()
    log.machine = install(tmp_path / "other", everything(snapshot), snapshot.head)
    seq = log.machine.seq
    for number, result in enumerate(recorded, 1):
        again = log.send(session, number, calls.receive({"sku-000": 1}))
        assert (again.kind, again.result) == ("result", result)
    assert log.send(session, 5, KEYED).kind == "gap"
    assert log.open(2) == session
    assert closed is None
    assert log.machine.session_count == 2
    assert log.machine.seq == seq
    used = outcome(log.send(session, 4, KEYED))
    assert isinstance(used, Accepted)
    assert (used.replayed, used.seq) == (True, 3)
    assert log.machine.problems() == []
    log.machine.close()


def test_commands_go_on_while_it_is_made(tmp_path: Path) -> None:
    log, session = shop(str(tmp_path / "store.db"))
    made: list[Snapshot] = []

    def make() -> None:
        made.extend(writer() for writer in writers)

    names = [tmp_path / f"snapshot-{number}.sqlite3" for number in range(5)]
    writers = [log.machine.snapshot_writer(name) for name in names]
    at_least = log.machine.position.index
    thread = Thread(target=make)
    thread.start()
    for number in range(4, 300):
        log.send(session, number, calls.receive({"sku-003": 1}), lowest=number)
        if number % 3 == 0:
            log.machine.flush()
    thread.join()
    assert len(made) == 5
    for number, snapshot in enumerate(made):
        index = snapshot.head.position.index
        assert at_least <= index <= log.machine.position.index
        machine = install(tmp_path / f"other-{number}", everything(snapshot), snapshot.head)
        assert machine.state_digest() == replayed(log, index).state_digest()
        log.replay(machine)
        assert machine.state_digest() == log.machine.state_digest()
        assert machine.problems() == []
        machine.close()
    log.machine.close()


def test_what_is_committed_between_two_steps_is_not_in_it_and_does_not_hold_it_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, session = shop(str(tmp_path / "store.db"))
    writer = log.machine.snapshot_writer(tmp_path / "snapshot.sqlite3")
    index, rests = log.machine.position.index, 0

    def commit(*progress: int) -> None:
        nonlocal rests
        rests += 1
        assert rests < 1_000, "it begins anew at every commit"
        log.send(session, 3 + rests, calls.receive({"sku-003": 1}), lowest=rests)
        log.machine.flush()

    monkeypatch.setattr(inventory_snapshot, "_STEP_PAGES", 1)
    monkeypatch.setattr(inventory_snapshot, "_rest", commit)
    snapshot = writer()
    assert snapshot.head.position.index == index
    assert rests == snapshot.size_bytes // 4_096 > 10
    machine = install(tmp_path / "other", everything(snapshot), snapshot.head)
    log.replay(machine)
    assert machine.state_digest() == log.machine.state_digest()
    machine.close()
    log.machine.close()


def test_it_may_be_of_a_later_state_than_the_call(tmp_path: Path) -> None:
    log, session = shop(str(tmp_path / "store.db"))
    writer = log.machine.snapshot_writer(tmp_path / "snapshot.sqlite3")
    log.send(session, 4, calls.ship({"sku-002": 5}))
    log.machine.flush()
    log.send(session, 5, calls.ship({"sku-002": 5}))
    assert writer().head.position == log.entries[-2].position
    log.machine.close()


def test_without_voters_there_is_none(tmp_path: Path) -> None:
    for path in (":memory:", str(tmp_path / "store.db")):
        log = Log(StateMachine(path))
        log.open()
        with pytest.raises(StorageError, match="does not know the voters"):
            snapshot_of(log, tmp_path)
        log.set_voters()
        assert snapshot_of(log, tmp_path).head.voters == VOTERS
        log.machine.close()


def test_its_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    log, _ = shop(str(tmp_path / "store.db"))
    (tmp_path / "snapshot.sqlite3.part").write_bytes(b"of a run that was stopped" * 999)
    snapshot = snapshot_of(log, tmp_path)
    assert not (tmp_path / "snapshot.sqlite3.part").exists()
    (tmp_path / "snapshot.sqlite3").unlink()
    assert len(everything(snapshot)) == snapshot.size_bytes
    snapshot.close()
    snapshot.close()
    with pytest.raises(StorageError):
        snapshot.read(0, 1)
    with pytest.raises(StorageError, match="cannot be written"):
        snapshot_of(log, tmp_path / "missing")
    (tmp_path / "snapshot.sqlite3").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        snapshot_of(log, tmp_path)
    assert not (tmp_path / "snapshot.sqlite3.part").exists()
    log.open(9)
    late = log.machine.snapshot_writer(tmp_path / "late.sqlite3")
    log.machine.close()
    with pytest.raises(StorageError, match="closed"):
        late()


# --- what is not believed -----------------------------------------------------------------------


class Target:
    """A server with a store of its own, which must stay what it is."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.incoming = directory / "incoming.sqlite3"
        self.store = directory / "store.db"
        log, session = shop(str(self.store))
        log.send(session, 4, calls.receive({"sku-009": 9}))
        self.digest = log.machine.state_digest()
        log.machine.close()
        self._bytes = self.store.read_bytes()

    def refuse(self, data: bytes, head: SnapshotHead, why: str = "snapshot") -> None:
        self.incoming.write_bytes(data)
        with pytest.raises(StorageError, match=why):
            exchange_for(self.incoming, self.store, head)
        assert self.incoming.exists()
        assert self.store.read_bytes() == self._bytes
        with pytest.raises(StorageError, match=why):
            StateMachine.from_snapshot(data, head)

    def check(self) -> None:
        machine = StateMachine(str(self.store))
        assert machine.state_digest() == self.digest
        machine.close()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "target")


@pytest.fixture
def made(tmp_path: Path) -> tuple[bytes, SnapshotHead]:
    log, _ = shop(str(tmp_path / "store.db"))
    snapshot = snapshot_of(log, tmp_path)
    log.machine.close()
    return everything(snapshot), snapshot.head


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :]


def restated(data: bytes, head: SnapshotHead) -> SnapshotHead:
    """The head of what a sender with a damaged store sends: it fits the bytes."""
    digest = blake2b(data, digest_size=16).digest()
    return msgspec.structs.replace(head, size_bytes=len(data), digest=digest)


def test_what_was_damaged_on_its_way_is_refused(
    target: Target, made: tuple[bytes, SnapshotHead]
) -> None:
    data, head = made
    for offset in range(0, len(data), len(data) // 40):
        target.refuse(flipped(data, offset), head, "hash differs")
    for size in (0, 1, 100, 4_096, len(data) // 2, len(data) - 1):
        target.refuse(data[:size], head, "bytes, not")
    target.refuse(data + b"\0", head, "bytes, not")
    target.check()


@pytest.mark.parametrize(
    "change",
    [
        {"position": Position(6, BALLOT, NO_HASH)},
        {"position": Position(99, BALLOT, NO_HASH)},
        {"time_us": 1},
        {"voters_index": 2},
        {"voters_ballot": NO_BALLOT},
        {"voters": VoterSet("shop", 6, VOTERS.voters)},
        {"digest": bytes(16)},
        {"size_bytes": 0},
    ],
)
def test_a_head_of_something_else_is_refused(
    target: Target, made: tuple[bytes, SnapshotHead], change: dict[str, Any]
) -> None:
    data, head = made
    target.refuse(data, msgspec.structs.replace(head, **change))
    target.check()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE levels SET on_hand = on_hand + 1 WHERE sku = 'sku-005'", "state digest"),
        ("DELETE FROM levels WHERE sku = 'sku-005'", "state digest"),
        ("UPDATE levels SET on_hand = 'many' WHERE sku = 'sku-005'", "state digest"),
        ("UPDATE items SET name = CAST(x'ff' AS TEXT)", "damaged|state digest"),
        ("UPDATE sessions SET body = x'c1'", "state digest"),
        ("DELETE FROM keys", "state digest"),
        ("INSERT INTO ledger VALUES (99, 1, '', x'90')", "ledger has seq 99"),
        ("DELETE FROM state", "does not know the voters"),
        ("UPDATE state SET body = x'c1'", "damaged"),
        ("UPDATE state SET body = 'text'", "damaged"),
        ("UPDATE state SET body = 5", "damaged"),
        ("DROP TABLE ledger_references", "tables"),
        ("CREATE TABLE more (x)", "tables"),
        ("CREATE TRIGGER t AFTER INSERT ON ledger BEGIN DELETE FROM keys; END", "tables"),
        ("PRAGMA application_id = 1", "not an inventory store"),
        (
            f"PRAGMA user_version = {SCHEMA_VERSION + 1}",
            f"later release.*schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}.*upgrade",
        ),
    ],
)
def test_a_store_that_was_damaged_at_its_sender_is_refused(
    tmp_path: Path, target: Target, made: tuple[bytes, SnapshotHead], statement: str, why: str
) -> None:
    path = tmp_path / "damaged.sqlite3"
    path.write_bytes(made[0])
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()
    data = path.read_bytes()
    target.refuse(data, restated(data, made[1]), why)
    target.check()


def test_a_count_of_keys_that_is_wrong_is_refused(
    tmp_path: Path, target: Target, made: tuple[bytes, SnapshotHead]
) -> None:
    path = tmp_path / "damaged.sqlite3"
    path.write_bytes(made[0])
    database = sqlite3.connect(path)
    (body,) = database.execute("SELECT body FROM state").fetchone()
    row = msgspec.msgpack.decode(body)
    row[5] += 1
    with database:
        database.execute("UPDATE state SET body = ?", (msgspec.msgpack.encode(row),))
    database.close()
    data = path.read_bytes()
    target.refuse(data, restated(data, made[1]), "there are 1 keys, the state says 2")


def test_damage_at_the_sender_never_becomes_another_stock(
    made: tuple[bytes, SnapshotHead],
) -> None:
    data, head = made
    whole = StateMachine.from_snapshot(data, head)
    expected = whole.digest().value
    refused = 0
    for offset in range(0, len(data), 499):
        damaged = flipped(data, offset)
        try:
            machine = StateMachine.from_snapshot(damaged, restated(damaged, head))
        except StorageError:
            refused += 1
        else:
            assert machine.digest().value == expected
    assert refused > 20


def test_no_store_at_all_is_refused(target: Target, made: tuple[bytes, SnapshotHead]) -> None:
    for data in (b"", b"SQLite format 3\0", b"This is no database. " * 500, bytes(8_192)):
        target.refuse(data, restated(data, made[1]))
    target.incoming.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        exchange_for(target.incoming, target.store, made[1])
    target.check()


# --- installing ---------------------------------------------------------------------------------


def test_a_store_in_use_is_not_exchanged(
    tmp_path: Path, target: Target, made: tuple[bytes, SnapshotHead]
) -> None:
    target.incoming.write_bytes(made[0])
    machine = StateMachine(str(target.store))
    with pytest.raises(StorageError, match="in use"):
        exchange_for(target.incoming, target.store, made[1])
    opened = machine._file
    assert opened is not None
    with opened.in_use():  # a thread of the closed store is not done yet
        machine.close()
        with pytest.raises(StorageError, match="in use"):
            exchange_for(target.incoming, target.store, made[1])
    target.check()
    exchange_for(target.incoming, target.store, made[1])
    machine = StateMachine(str(target.store))
    assert machine.position == made[1].position
    machine.close()


class Disk:
    """What was done to a directory, and so what a crash may leave of it.

    A change of names is on the disk for sure only behind the next sync of the directory; until
    then each may be there or not, whatever came first.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, ...]] = []
        replace, unlink, sync = os.replace, Path.unlink, file.sync_directory

        def record_replace(source: Path, target: str | Path) -> None:
            replace(source, target)
            self.steps.append(("replace", Path(source).name, Path(target).name))

        def record_unlink(path: Path, missing_ok: bool = False) -> None:
            unlink(path, missing_ok=missing_ok)
            self.steps.append(("unlink", path.name))

        def record_sync(path: Path) -> None:
            sync(path)
            self.steps.append(("sync",))

        monkeypatch.setattr(os, "replace", record_replace)
        monkeypatch.setattr(Path, "unlink", record_unlink)
        monkeypatch.setattr(file, "sync_directory", record_sync)

    def crashes(self) -> list[list[tuple[str, ...]]]:
        """Every set of steps that may be all that is left after a crash."""
        found: list[list[tuple[str, ...]]] = [[]]
        safe: list[tuple[str, ...]] = []
        open_: list[tuple[str, ...]] = []
        for step in self.steps:
            if step == ("sync",):
                safe, open_ = safe + open_, []
                continue
            open_.append(step)
            for count in range(1, len(open_) + 1):
                found.extend(safe + list(some) for some in combinations(open_, count))
        return [left for number, left in enumerate(found) if left not in found[:number]]


def test_a_crash_at_any_step_leaves_the_old_store_or_the_new_one(
    tmp_path: Path, made: tuple[bytes, SnapshotHead]
) -> None:
    log, session = shop(str(tmp_path / "old.db"))
    log.machine.checkpointer()()
    log.send(session, 4, calls.receive(dict.fromkeys(SKUS, 1)))
    log.machine.flush()
    before = tmp_path / "before"
    before.mkdir()
    for beside in ("", "-wal", "-shm"):  # killed: its log was not copied into its file
        shutil.copy(tmp_path / f"old.db{beside}", before / f"store.db{beside}")
    (before / "incoming.sqlite3").write_bytes(made[0])
    old = log.machine.state_digest()
    new = replayed(log, made[1].position.index).state_digest()
    assert old != new
    log.machine.close()

    rehearsal = tmp_path / "rehearsal"
    shutil.copytree(before, rehearsal)
    with pytest.MonkeyPatch.context() as monkeypatch:
        disk = Disk(monkeypatch)
        exchange_for(rehearsal / "incoming.sqlite3", rehearsal / "store.db", made[1])
    crashes = disk.crashes()
    ends = []
    for number, left in enumerate(crashes):
        directory = tmp_path / f"crash-{number}"
        shutil.copytree(before, directory)
        for name, *paths in left:
            if name == "replace":
                os.replace(directory / paths[0], directory / paths[1])
            else:
                (directory / paths[0]).unlink(missing_ok=True)
        machine = StateMachine(str(directory / "store.db"))
        ends.append(machine.state_digest())
        assert machine.problems() == []
        assert machine.position.index in (made[1].position.index, log.machine.position.index)
        machine.close()
        assert not (directory / "store.db-install").exists()
    assert ends == [old] + [new] * (len(crashes) - 1)
    assert len(crashes) == 10  # nothing; the name; 7 of three files beside the old; the exchange


@pytest.mark.parametrize("refused", range(1, 9))
def test_an_exchange_that_the_disk_refuses_is_completed_by_the_next_opening(
    target: Target,
    made: tuple[bytes, SnapshotHead],
    refused: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target.incoming.write_bytes(made[0])
    calls_made = 0
    replace, sync = os.replace, os.fsync

    def may_fail() -> None:
        nonlocal calls_made
        calls_made += 1
        if calls_made == refused:
            raise OSError(5, "Input/output error")

    def failing_replace(source: Path, to: str | Path) -> None:
        may_fail()
        replace(source, to)

    def failing_sync(descriptor: int) -> None:
        may_fail()
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing_replace)
        patched.setattr(os, "fsync", failing_sync)
        if refused <= 6:
            with pytest.raises(StorageError, match="cannot be installed"):
                exchange_for(target.incoming, target.store, made[1])
        else:
            exchange_for(target.incoming, target.store, made[1])
    began = not target.incoming.exists()
    assert began == (refused > 2)
    machine = StateMachine(str(target.store))
    if began:
        assert machine.position == made[1].position
    else:
        assert machine.state_digest() == target.digest
    assert machine.problems() == []
    machine.close()


def test_a_blank_server_and_another_directory(
    tmp_path: Path, made: tuple[bytes, SnapshotHead]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "at").mkdir()
    incoming = tmp_path / "in" / "incoming.sqlite3"
    incoming.write_bytes(made[0])
    exchange_for(incoming, tmp_path / "at" / "store.db", made[1])
    machine = StateMachine(str(tmp_path / "at" / "store.db"))
    assert (machine.position, machine.problems()) == (made[1].position, [])
    assert not incoming.exists()
    machine.close()
