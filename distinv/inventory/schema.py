"""The store's file: its tables, and opening it safely.

One writer holds the file, proved by a lock on a file beside it: the store keeps levels in
memory, so a second writer would not be seen. Readers in other threads use connections of their
own (`open_reader`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from functools import cache
from pathlib import Path
from urllib.parse import quote

from distinv.errors import StorageError

MEMORY = ":memory:"
APPLICATION_ID = 0x64496E76
SCHEMA_VERSION = 1

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

WAL_AUTOCHECKPOINT_PAGES = 8_000
CACHE_KIB = 64_000


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
        _template().backup(database)  # ten times faster than creating the tables
        return
    version = _checked_version(database, path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    database.execute(f"PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES}")
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if version == 0:
        database.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
            f"PRAGMA user_version = {SCHEMA_VERSION}; {_TABLES} COMMIT;"
        )


@cache
def _template() -> sqlite3.Connection:
    """An empty store in memory, to copy."""
    database = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
    database.executescript(_TABLES)
    return database


def _checked_version(database: sqlite3.Connection, path: str) -> int:
    """The file's schema version; 0 when it is empty."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application == 0 and version == 0 and tables == 0:
        return 0
    if application != APPLICATION_ID:
        raise StorageError(f"{path} is a SQLite file, but not an inventory store: name another.")
    if version != SCHEMA_VERSION:
        side = "a newer" if version > SCHEMA_VERSION else "an older"
        raise StorageError(
            f"{path} was written by {side} version of distinv (schema {version}, this one reads "
            f"{SCHEMA_VERSION}): open it with that version, or move it away and let the server "
            "fetch the data from its peers."
        )
    return int(version)


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that only reads; each transaction on it is one consistent cut."""
    try:
        return sqlite3.connect(
            f"file:{quote(os.path.abspath(path))}?mode=ro", uri=True, isolation_level=None
        )
    except sqlite3.Error as error:
        raise StorageError(f"The store {path} cannot be read: {error}.") from error


class FileLock:
    """Held from construction to `close`; ends with the process, whatever happens to it."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        """Raises StorageError when another store holds the file."""
        lock = Path(f"{path}.lock")
        try:
            self._descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StorageError(f"The store {path} cannot be opened: {error}.") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise StorageError(
                f"The store {path} is in use: close the other one first, or name another file."
            ) from error

    def close(self) -> None:
        os.close(self._descriptor)
