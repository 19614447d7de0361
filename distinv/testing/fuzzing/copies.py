"""Copies of stores: ones that nobody asked for, and ones that are wrong in a way that adds up.

Whoever sends a snapshot chooses its head, so size and hash say nothing about its maker. Inputs are
whole files, spoilt as bytes, or as tables; the head is made to fit, and where the file can still be
read, the sum of its rows as well.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec.structs import replace

from distinv.entry import (
    Ballot,
    Entry,
    EntryKind,
    NodeId,
    SnapshotHead,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.errors import StorageError
from distinv.inventory.cells import DIGEST_MODULUS, contribution
from distinv.inventory.machine import StateMachine
from distinv.inventory.schema import MEMORY, StoreState, read_state
from distinv.inventory.snapshot import DIGEST_BYTES, Snapshot, look_at_snapshot
from distinv.testing.fuzzing.corpus import questions, work
from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.scene import CLUSTER, EPOCH_US, tight
from distinv.testing.fuzzing.target import Target
from distinv.wire.batch import OpenCommand, SessionCommand, encode_batch, session_id

MADE_UP_ENTRIES = 400
"""Further than any log in a scene comes."""
DISK_EVERY = 10
"""That takes ten times as long, and does the same."""
_ROWS = ("items", "locations", "levels", "keys", "sessions")
"""Those that the state digest counts; each is called by its singular there."""


def machine_of(voter: NodeId, cluster_id: int) -> StateMachine:
    """A store behind the first entry of a log, in which `voter` alone votes."""
    machine = StateMachine(MEMORY, tight().limits)
    voters = VoterSet(CLUSTER, cluster_id, (Voter(voter, "usurper"),))
    _apply(machine, EntryKind.VOTERS, encode_voters(voters))
    return machine


def _apply(machine: StateMachine, kind: EntryKind, payload: bytes) -> None:
    voter = 1 if machine.voters is None else machine.voters[2].ids[0]
    entry: Entry = make_entry(machine.position, Ballot(1, voter), EPOCH_US, kind, payload)
    machine.apply(entry)


@cache
def made_up_copy(cluster_id: int, voter: NodeId) -> Snapshot:
    """A sound snapshot of a log that never was."""
    machine = machine_of(voter, cluster_id)
    for _ in range(MADE_UP_ENTRIES):
        _apply(machine, EntryKind.NOOP, b"")
    made = machine.snapshot_writer(Path())()
    machine.close()
    return made


@cache
def worked_copy() -> bytes:
    """The file of a store that has been used."""
    machine = machine_of(NodeId(1), 7)
    _work(machine)
    made = machine.snapshot_writer(Path())()
    machine.close()
    return made.read(0, made.size_bytes)


def _work(machine: StateMachine) -> None:
    """Every command, and every question, by a new session."""
    session = session_id(machine.position.index + 1, 0)
    _apply(machine, EntryKind.COMMANDS, encode_batch([OpenCommand(session, "fuzz")]))
    commands = [
        SessionCommand(session, number, number - 5, call.encode())
        for number, call in enumerate(work(), 1)
    ]
    for first in range(0, len(commands), 10):
        _apply(machine, EntryKind.COMMANDS, encode_batch([*commands[first : first + 10]]))
    for ask in questions():
        machine.query(ask.encode())


# --- what is wrong with it ----------------------------------------------------------------------


def _opened(data: bytes) -> sqlite3.Connection:
    """Raises sqlite3.Error."""
    database = sqlite3.connect(MEMORY, isolation_level=None)
    plain = bytearray(data)
    plain[18:20] = b"\1\1"  # there is no write-ahead log in memory
    database.deserialize(bytes(plain))
    return database


def _values(random: Random) -> Iterable[Any]:
    """What no row should hold, or not there."""
    return (
        *(None, 0, -1, 1, 2**63 - 1, -(2**63), 1.5, "", "main", "apple", "\0", "x" * 300),
        *(b"", b"\x93\x01\x02", b"\xc1", random.randbytes(16), b"\x81\xa1a\xc0", True, "7"),
    )


def forged(data: bytes, change: Callable[[sqlite3.Connection], None], **state: Any) -> bytes:
    """The same store with something changed, and sums that are right all the same."""
    with closing(_opened(data)) as database:
        change(database)
        try:
            _balance(database, state)
        except (sqlite3.Error, StorageError, OverflowError, TypeError):
            pass  # then it is as wrong as it is
        return database.serialize()


def _spoil(database: sqlite3.Connection, random: Random) -> None:
    for _ in range(1 + int(random.random() * 3)):
        _change(database, random)


def _change(database: sqlite3.Connection, random: Random) -> None:
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE sql <> ''")]
    table = random.choice([name for name in names if not name.startswith("keys_by")])
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    column, value = random.choice(columns), random.choice(list(_values(random)))
    where = "1"
    if random.random() < 0.7:
        where = f"{random.choice(columns)} = (SELECT max({columns[0]}) FROM {table})"
    try:
        if random.random() < 0.1:
            database.execute(f"DELETE FROM {table} WHERE {where}")
        else:
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {where}", (value,))
    except sqlite3.Error:
        pass  # a constraint of the table's: then it stays as it was


def _balance(database: sqlite3.Connection, others: dict[str, Any]) -> None:
    """Make the state's row fit, but for what is to be otherwise."""
    total = sum(
        contribution(table.removesuffix("s"), *row)
        for table in _ROWS
        for row in database.execute(f"SELECT * FROM {table}")
    )
    (keys,) = database.execute("SELECT count(*) FROM keys").fetchone()
    digest = (total % DIGEST_MODULUS).to_bytes(16, "big")
    state = replace(read_state(database), **{"keys": keys, "digest_sum": digest, **others})
    database.execute("UPDATE state SET body = ?", (msgspec.msgpack.encode(state),))


def _out_of_place(random: Random) -> dict[str, Any]:
    if random.random() < 0.9:
        return {}
    name = random.choice(("index", "time_us", "seq", "voters_index", "hash"))
    return {name: b"short" if name == "hash" else random.choice((0, -1, 2**63, 2**64 - 1))}


def head_of(data: bytes) -> SnapshotHead:
    """What somebody would say of this file who wants it to be believed."""
    state: StoreState | None = None
    try:
        with closing(_opened(data)) as database:
            state = read_state(database)
    except (sqlite3.Error, StorageError, IndexError, UnicodeDecodeError):
        pass
    if state is None or state.voters is None:
        with closing(_opened(worked_copy())) as database:
            state = read_state(database)
    assert state.voters is not None
    digest = blake2b(data, digest_size=DIGEST_BYTES).digest()
    return SnapshotHead(
        state.position,
        state.time_us,
        state.voters_index,
        state.voters_ballot,
        state.voters,
        len(data),
        digest,
    )


# --- taking it ----------------------------------------------------------------------------------


class _Copies:
    """Files, to a server in memory and to one on disk: refused, or used from then on."""

    def __init__(self, seed: int) -> None:
        self._random = Random(f"copies {seed}")
        self._mutator = Mutator(self._random, [worked_copy()])
        self._limits = tight().limits
        self._fed = 0

    def generate(self) -> bytes:
        if self._random.random() < 0.3:
            return self._mutator.spoilt(worked_copy())
        random = self._random
        return forged(worked_copy(), partial(_spoil, random=random), **_out_of_place(random))

    def feed(self, data: bytes) -> str:
        head = head_of(data)
        self._fed += 1
        came_to = self._take_to_memory(data, head)
        if self._fed % DISK_EVERY == 0:
            on_disk = self._take_to_disk(data, head)
            assert on_disk == (came_to != "refused"), "one server believes it, another does not"
        return came_to

    def _take_to_memory(self, data: bytes, head: SnapshotHead) -> str:
        try:
            machine = StateMachine.from_snapshot(data, head, self._limits)
        except StorageError:
            return "refused"
        try:
            _work(machine)
            machine.state_digest()
            machine.close()
        except StorageError:  # the ledger is read when somebody asks, and not before
            machine.abandon()
            return "stopped"
        return "believed"

    def _take_to_disk(self, data: bytes, head: SnapshotHead) -> bool:
        with tempfile.TemporaryDirectory(prefix="distinv-fuzz-") as directory:
            incoming = Path(directory) / "incoming.sqlite3"
            incoming.write_bytes(data)
            try:
                look_at_snapshot(incoming, head)
            except StorageError:
                return False
            StateMachine(str(incoming), self._limits).close()
            return True

    def check(self) -> None:
        pass

    def sizes(self) -> dict[str, int]:
        return {}


TARGETS = (
    Target(
        "snapshots",
        "other servers' stores, spoilt, and forged under right sums",
        (),
        _Copies,
        1_000,
        1_000,
    ),
)
