"""The rows of the sessions in a store's file, and what they add to the state digest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from distinv.core.sessions import Session, decode_session, encode_session
from distinv.inventory.cells import contribution


class SessionRows:
    __slots__ = ("_contributions", "_database")

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._contributions: dict[int, int] = {}
        """Of each row as it was last read or written."""

    def read(self) -> Iterator[Session]:
        """All of them, once. Raises msgspec.DecodeError."""
        for session, body in self._database.execute("SELECT id, body FROM sessions"):
            self._contributions[session] = contribution("session", session, body)
            yield decode_session(session, body)

    def write(self, changed: Iterable[tuple[int, Session | None]]) -> int:
        """Put these into the open transaction, None for one that is gone: the digest's change."""
        contributions, change = self._contributions, 0
        put, gone = [], []
        for session, state in changed:
            change -= contributions.pop(session, 0)
            if state is None:
                gone.append((session,))
                continue
            body = encode_session(state)
            contributions[session] = contribution("session", session, body)
            change += contributions[session]
            put.append((session, body))
        if gone:
            self._database.executemany("DELETE FROM sessions WHERE id = ?", gone)
        if put:
            self._database.executemany("REPLACE INTO sessions VALUES (?, ?)", put)
        return change
