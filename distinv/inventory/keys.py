"""Idempotency keys: which explicit keys took effect, with what payload, and at which seq.

Kept for `Limits.keys_kept_us` of the log's time and never forgotten early: at
`Limits.keys_max` further keys are refused. An entry forgets a bounded number, so that a quiet
week does not stall the next command.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from distinv.config import Limits
from distinv.inventory.cells import contribution
from distinv.inventory.commands import Adjust, Command, Receive, Ship, Transfer

_encode = msgspec.msgpack.Encoder().encode


class KeyRow(NamedTuple):
    key: str
    seq: int
    time_us: int
    hash: bytes


def payload_hash(command: Command) -> bytes:
    """What two commands must share to count as the same: 16 bytes.

    Lines are summed and sorted; note and occurred_at do not count.
    """
    parts: list[object] = []
    for operation in command.operations:
        about = operation.about
        part: list[object] = [
            operation.__struct_config__.tag,
            about.reason,
            about.reference,
        ]
        if isinstance(operation, Receive | Ship | Adjust | Transfer):
            home = operation.source if isinstance(operation, Transfer) else operation.location
            sums: dict[tuple[str, str], int] = {}
            for line in operation.lines:
                place = line.sku, line.location or home
                sums[place] = sums.get(place, 0) + line.quantity
            part.append(sorted(sums.items()))
            if isinstance(operation, Transfer):
                part.append(operation.destination)
        else:
            for name in operation.__struct_fields__:
                if name != "about":
                    value = getattr(operation, name)
                    part.append(sorted(value.items()) if isinstance(value, dict) else value)
        parts.append(part)
    return blake2b(_encode(parts), digest_size=16).digest()


class KeyTable:
    __slots__ = (
        "_database",
        "_limits",
        "_new",
        "_oldest_us",
        "count",
        "digest_change",
    )

    def __init__(self, database: sqlite3.Connection, limits: Limits, count: int) -> None:
        self._database = database
        self._limits = limits
        self.count = count
        """Keys that are kept, those due included until an entry forgets them."""
        self.digest_change = 0
        """What the store's digest has not yet counted."""
        self._new: dict[str, KeyRow] = {}
        self._oldest_us = self._read_oldest()

    @property
    def full(self) -> bool:
        return self.count >= self._limits.keys_max

    def get(self, key: str, now_us: int) -> KeyRow | None:
        """The use of a key that is still remembered at `now_us`."""
        row = self._find(key)
        return row if row is not None and not self._is_due(row.time_us, now_us) else None

    def put(self, row: KeyRow) -> None:
        """Remember the use of a key that `get` does not know."""
        stale = self._find(row.key)
        if stale is not None:
            self.write()
            self._forget(stale)
        if self.count == 0:
            self._oldest_us = row.time_us
        self.count += 1
        self.digest_change += contribution("key", *row)
        self._new[row.key] = row

    def start_clock(self, now_us: int) -> None:
        """The log bears its first time: keys of before were used just now, not in 1970."""
        if not self.count:
            return
        self.write()
        rows = self._database.execute("SELECT key, seq, time_us, hash FROM keys").fetchall()
        for fields in rows:
            row = KeyRow(*fields)
            self.digest_change -= contribution("key", *row)
            self.digest_change += contribution("key", row.key, row.seq, now_us, row.hash)
        self._database.execute("UPDATE keys SET time_us = ?", (now_us,))
        self._oldest_us = now_us

    def expire(self, now_us: int) -> None:
        """Forget keys that are due, at most `Limits.keys_forgotten`."""
        if self._oldest_us is None or not self._is_due(self._oldest_us, now_us):
            return
        self.write()
        rows = self._database.execute(
            "SELECT key, seq, time_us, hash FROM keys ORDER BY seq LIMIT ?",
            (self._limits.keys_forgotten,),
        ).fetchall()
        for fields in rows:
            row = KeyRow(*fields)
            if not self._is_due(row.time_us, now_us):
                break
            self._forget(row)
        self._oldest_us = self._read_oldest()

    def write(self) -> None:
        """Put the new keys into the open transaction, or begin one: others write behind this."""
        if not self._database.in_transaction:
            self._database.execute("BEGIN IMMEDIATE")
        if self._new:
            rows = sorted(self._new.values())
            self._database.executemany("INSERT INTO keys VALUES (?, ?, ?, ?)", rows)
            self._new = {}

    def _find(self, key: str) -> KeyRow | None:
        row = self._new.get(key)
        if row is not None or not self.count:
            return row
        fields = self._database.execute(
            "SELECT key, seq, time_us, hash FROM keys WHERE key = ?", (key,)
        ).fetchone()
        return None if fields is None else KeyRow(*fields)

    def _forget(self, row: KeyRow) -> None:
        self._database.execute("DELETE FROM keys WHERE key = ?", (row.key,))
        self.count -= 1
        self.digest_change -= contribution("key", *row)

    def _is_due(self, time_us: int, now_us: int) -> bool:
        return time_us + self._limits.keys_kept_us <= now_us

    def _read_oldest(self) -> int | None:
        row = self._database.execute("SELECT time_us FROM keys ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else int(row[0])
