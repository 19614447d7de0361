"""The store's tables, the row that says how far it has come, and opening it safely.

One writer holds the file (`distinv.inventory.file`): the store keeps levels in memory, so a
second writer would not be seen. Readers in other threads use connections of their own
(`open_reader`).
"""

from __future__ import annotations

import os
import sqlite3
from functools import cache
from urllib.parse import quote

import msgspec

from distinv.entry import NO_BALLOT, NO_HASH, Ballot, Position, VoterSet
from distinv.errors import StorageError

MEMORY = ":memory:"
APPLICATION_ID = 0x64496E76
SCHEMA_VERSION = 2
"""2: the state's row remembers the voters. A program that reads 1 would drop them."""
OLDEST_READ = 1
"""Opening a file of this version makes it one of `SCHEMA_VERSION`: its rows need no change."""

_TABLES = """
CREATE TABLE state (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE items (
    sku TEXT PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL, scale INTEGER NOT NULL,
    attributes BLOB NOT NULL, discontinued INTEGER NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE locations (
    name TEXT PRIMARY KEY, sellable INTEGER NOT NULL, version INTEGER NOT NULL,
    stocked INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE levels (
    sku TEXT NOT NULL, location TEXT NOT NULL, on_hand INTEGER NOT NULL,
    reserved INTEGER NOT NULL, committed INTEGER NOT NULL, version INTEGER NOT NULL,
    chain INTEGER NOT NULL, PRIMARY KEY (sku, location)
) WITHOUT ROWID;
CREATE TABLE ledger (
    seq INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, actor TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE ledger_references (
    reference TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (reference, seq)
) WITHOUT ROWID;
CREATE TABLE keys (
    key TEXT PRIMARY KEY, seq INTEGER NOT NULL, time_us INTEGER NOT NULL, hash BLOB NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX keys_by_seq ON keys (seq);
CREATE TABLE sessions (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
"""

_CREATE = (
    f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; {_TABLES}"
)

WAL_AUTOCHECKPOINT_PAGES = 8_000
"""Of a store by itself: 32 MB, and whoever commits then waits for it."""
WAL_PAGES_MAX = 64_000
"""Of a store that has its log copied by `StateMachine.checkpointer`, should nobody do that."""
CACHE_KIB = 64_000


class StoreState(msgspec.Struct, frozen=True, array_like=True):
    """The row that says how far the store has come. Append only, with defaults: it is on disk."""

    index: int
    ballot: Ballot
    hash: bytes
    time_us: int
    seq: int
    keys: int
    digest_sum: bytes
    voters_index: int = 0
    """Where the voters were set: that entry is at or below `index`."""
    voters_ballot: Ballot = NO_BALLOT
    voters: VoterSet | None = None
    """The committed set in force at `index`. None: none was set, or the file is older."""

    @property
    def position(self) -> Position:
        return Position(self.index, self.ballot, self.hash)


BLANK = StoreState(0, NO_BALLOT, NO_HASH, 0, 0, 0, bytes(16))
_decode_state = msgspec.msgpack.Decoder(StoreState).decode


def read_state(database: sqlite3.Connection) -> StoreState:
    """`BLANK` for an empty store. Raises StorageError, sqlite3.Error."""
    row = database.execute("SELECT body FROM state").fetchone()
    try:
        return BLANK if row is None else _decode_state(row[0])
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise StorageError(
            f"The row that says how far the store is, is damaged: {error}."
        ) from error


def open_database(path: str, *, durable: bool) -> sqlite3.Connection:
    """Open or create a store's file, or an empty one in memory.

    `durable`: a commit survives a power cut by itself; otherwise a journal is replayed behind
    it. Raises StorageError when the file is no store, or one of another version.
    """
    try:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, path, durable)
        except BaseException:
            database.close()
            raise
    except sqlite3.Error as error:
        raise StorageError(f"The store {path} cannot be opened: {error}.") from error
    return database


def _prepare(database: sqlite3.Connection, path: str, durable: bool) -> None:
    if path == MEMORY:
        _template().backup(database)  # cheaper than creating the tables
        return
    version = _checked_version(database, path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    pages = WAL_AUTOCHECKPOINT_PAGES if durable else WAL_PAGES_MAX
    database.execute(f"PRAGMA wal_autocheckpoint = {pages}")
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if version == 0:
        database.executescript(f"BEGIN; {_CREATE} COMMIT;")
    elif version != SCHEMA_VERSION:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _empty() -> sqlite3.Connection:
    database = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
    database.executescript(_CREATE)
    return database


@cache
def _template() -> sqlite3.Connection:
    """An empty store in memory, to copy."""
    return _empty()


def check_copy(database: sqlite3.Connection, name: str) -> None:
    """Whether a store that was copied from another server is one of ours, and sound as a file.

    Reads all of it. Raises StorageError, sqlite3.Error.
    """
    if _checked_version(database, name) == 0:
        raise StorageError(f"{name} is empty.")
    (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise StorageError(f"{name} is damaged: {found}.")
    own = _empty()  # in a thread: the template belongs to the loop
    try:
        if _definitions(own) != _definitions(database):
            raise StorageError(f"{name} has not the tables of an inventory store.")
    finally:
        own.close()


def _definitions(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    return database.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()


def _checked_version(database: sqlite3.Connection, path: str) -> int:
    """The file's schema version; 0 when it is empty."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application == 0 and version == 0 and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise StorageError(f"{path} is a SQLite file, but not an inventory store: name another.")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a later release of distinv (schema {version}, this one reads "
            f"up to {SCHEMA_VERSION}): upgrade distinv here."
        )
    if version < OLDEST_READ:
        raise StorageError(
            f"{path} was written by an older version of distinv (schema {version}, this one reads "
            f"{OLDEST_READ} and later): open it with that version, or move it away and let the "
            "server fetch the data from its peers."
        )
    return int(version)


def open_reader(path: str, *, immutable: bool = False) -> sqlite3.Connection:
    """A connection that only reads; each transaction on it is one consistent cut.

    `immutable`: nobody writes the file and there is no write-ahead log beside it; then nothing
    is locked, and nothing but the file itself is looked at.
    """
    return _connect(path, "mode=ro&immutable=1" if immutable else "mode=ro")


def open_second(path: str) -> sqlite3.Connection:
    """A second connection to a file that is there, which may write. Raises StorageError."""
    return _connect(path, "mode=rw")


def _connect(path: str, options: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"file:{quote(os.path.abspath(path))}?{options}", uri=True, isolation_level=None
        )
    except sqlite3.Error as error:
        raise StorageError(f"The store {path} cannot be read: {error}.") from error
