"""Pages of the ledger: by sku along the chains of its levels, by reference, or all of it.

A page looks at a bounded number of rows; it may end early, with a `next`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from distinv.config import Limits
from distinv.errors import StorageError
from distinv.inventory.history import Record, ledger_rows, read_record, read_records
from distinv.inventory.queries import AskLedger, LedgerPage, LedgerRow

_LAST_LINE = 1 << 40


def ledger_page(
    database: sqlite3.Connection, query: AskLedger, last_seq: int, limits: Limits
) -> LedgerPage:
    """Answer a question whose state ends at `last_seq`."""
    first, last = _bounds(database, query, last_seq)
    page = _Page(query, limits)
    for scanned, record in enumerate(_records(database, query, first, last, limits), 1):
        if page.add(record):
            break
        if scanned >= limits.page_scan_rows:
            page.stop_after(record.seq)
            break
    return LedgerPage(last_seq, tuple(page.rows), page.next)


class _Page:
    """Collects the lines that match, until it is full."""

    def __init__(self, query: AskLedger, limits: Limits) -> None:
        self.rows: list[LedgerRow] = []
        self.next: tuple[int, int] | None = None
        self._query = query
        self._room_bytes = limits.page_bytes
        self._last: tuple[int, int] | None = None

    def add(self, record: Record) -> bool:
        """Add a record's lines; True when the page is full and `next` is set."""
        query = self._query
        numbered = list(enumerate(ledger_rows(record)))
        for line, row in reversed(numbered) if query.newest_first else numbered:
            place = (record.seq, line)
            if not self._matches(row) or not self._is_after(place):
                continue
            if len(self.rows) == query.limit or self._room_bytes <= 0:
                self.next = self._last
                return True
            self.rows.append(row)
            self._room_bytes -= 4 * (len(row.note) + len(row.reference) + len(row.sku)) + 100
            self._last = place
        return False

    def stop_after(self, seq: int) -> None:
        self.next = (seq, 0 if self._query.newest_first else _LAST_LINE)

    def _matches(self, row: LedgerRow) -> bool:
        query = self._query
        return (
            (query.sku is None or row.sku == query.sku)
            and (query.location is None or row.location == query.location)
            and (query.reference is None or row.reference == query.reference)
        )

    def _is_after(self, place: tuple[int, int]) -> bool:
        after = self._query.after
        if after is None:
            return True
        return place < after if self._query.newest_first else place > after


def _bounds(database: sqlite3.Connection, query: AskLedger, last_seq: int) -> tuple[int, int]:
    """The first and last seq that may be on the page."""
    first, last = max(1, query.since_seq or 1), last_seq
    if query.since_us is not None:
        first = max(first, _seq_at(database, query.since_us, last_seq))
    if query.after is not None:
        if query.newest_first:
            last = min(last, query.after[0])
        else:
            first = max(first, query.after[0])
    return first, last


def _seq_at(database: sqlite3.Connection, time_us: int, last_seq: int) -> int:
    """The first seq applied at `time_us` or later: times never decrease with seq."""
    low, high = 1, last_seq + 1
    while low < high:
        middle = (low + high) // 2
        row = database.execute(
            "SELECT seq, time_us FROM ledger WHERE seq >= ? ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if row is None or row[1] >= time_us:
            high = middle
        else:
            low = row[0] + 1
    return low


def _records(
    database: sqlite3.Connection, query: AskLedger, first: int, last: int, limits: Limits
) -> Iterator[Record]:
    if first > last:
        return iter(())
    if query.reference is not None:
        return _by_reference(database, query, first, last)
    if query.sku is not None:
        chain = _Chain(database, query.sku, query.location)
        if query.newest_first:
            return chain.walk(first, last)
        seqs = chain.seqs(first, last, limits.page_scan_rows)
        if seqs is not None:
            return _by_seq(database, reversed(seqs))
    return read_records(database, first, last, newest_first=query.newest_first)


def _by_reference(
    database: sqlite3.Connection, query: AskLedger, first: int, last: int
) -> Iterator[Record]:
    order = "DESC" if query.newest_first else "ASC"
    rows = database.execute(
        f"SELECT seq FROM ledger_references WHERE reference = ? AND seq BETWEEN ? AND ?"
        f" ORDER BY seq {order}",
        (query.reference, first, last),
    )
    return _by_seq(database, (seq for (seq,) in rows))


def _by_seq(database: sqlite3.Connection, seqs: Iterator[int]) -> Iterator[Record]:
    for seq in seqs:
        record = read_record(database, seq)
        if record is not None:
            yield record


class _Chain:
    """The history of a sku, newest first: the chains of its levels, merged."""

    def __init__(self, database: sqlite3.Connection, sku: str, location: str | None) -> None:
        self._database = database
        self._sku = sku
        rows = database.execute("SELECT location, chain FROM levels WHERE sku = ?", (sku,))
        self._heads = {place: seq for place, seq in rows if location in (None, place)}

    def walk(self, first: int, last: int) -> Iterator[Record]:
        """The records of `first..last`."""
        heads = self._heads
        self._jump(last)
        while heads:
            seq = max(heads.values())
            if seq < first:
                return
            record = read_record(self._database, seq)
            if record is None:
                raise StorageError(f"The ledger is damaged: a chain leads to seq {seq}.")
            self._step(record)
            if seq <= last:
                yield record

    def seqs(self, first: int, last: int, most: int) -> list[int] | None:
        """The seqs of `first..last`, newest first; None after `most` steps without an end."""
        found: list[int] = []
        for record in self.walk(first, last):
            if len(found) == most:
                return None
            found.append(record.seq)
        return found

    def _jump(self, last: int) -> None:
        """With one chain only, begin at `last` itself when the chain goes through it."""
        if len(self._heads) == 1:
            record = read_record(self._database, last)
            (place,) = self._heads
            if record is not None and self._previous(record, place) is not None:
                self._heads[place] = last

    def _step(self, record: Record) -> None:
        for place, seq in list(self._heads.items()):
            if seq == record.seq:
                previous = self._previous(record, place)
                if previous is not None and previous >= seq:
                    raise StorageError(f"The ledger is damaged: a chain ends in a ring at {seq}.")
                if previous:
                    self._heads[place] = previous
                else:
                    del self._heads[place]

    def _previous(self, record: Record, place: str) -> int | None:
        """Where the chain of one level goes on behind a record; None when it is not in it."""
        for effect in record.effects:
            for line in effect.lines:
                if line.sku == self._sku and line.location == place:
                    return line.previous
        return None
