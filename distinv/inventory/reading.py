"""Questions answered from a store at one seq."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from distinv.config import Limits
from distinv.core.sessions import SessionTable
from distinv.errors import InvalidRequest, NotFound, UnknownItem
from distinv.inventory.commands import (
    ItemRow,
    LevelRow,
    encode_outcome,
    parse_session_key,
)
from distinv.inventory.digest import digest_of, stock_by_sku
from distinv.inventory.history import accepted_again, read_record
from distinv.inventory.keys import KeyTable
from distinv.inventory.ledger import ledger_page
from distinv.inventory.queries import (
    Answer,
    AskAvailable,
    AskDigest,
    AskItem,
    AskItems,
    AskLedger,
    AskLevelList,
    AskLevels,
    AskLocations,
    AskResolve,
    DigestValue,
    Failure,
    Fate,
    Items,
    LedgerPage,
    Levels,
    Locations,
    Number,
    Query,
    Resolved,
)
from distinv.inventory.tables import Tables, decode_attributes

Listed = TypeVar("Listed", ItemRow, LevelRow)


class Reader:
    """Answers from what was applied so far: `seq` and `time_us` are the state's."""

    __slots__ = ("_keys", "_limits", "_sessions", "_tables", "seq", "time_us")

    def __init__(
        self, tables: Tables, keys: KeyTable, sessions: SessionTable, limits: Limits
    ) -> None:
        self._tables = tables
        self._keys = keys
        self._sessions = sessions
        self._limits = limits
        self.seq = 0
        self.time_us = 0

    def answer(self, query: Query) -> Answer:
        """Every checked question has an answer; what does not exist is a `Failure`."""
        try:
            return _ANSWERS[type(query)](self, query)
        except (NotFound, InvalidRequest) as error:
            return Failure(self.seq, error.code, str(error))

    def fate(self, key: str) -> Resolved:
        """What became of a key, see `Fate`."""
        place = parse_session_key(key)
        if place is not None:
            return self._fate_of_number(*place)
        row = self._keys.get(key, self.time_us)
        if row is None:
            return Resolved(self.seq, Fate.ABSENT, 0, b"")
        self._tables.write()
        record = read_record(self._tables.database, row.seq)
        if record is None:
            return Resolved(self.seq, Fate.DROPPED, 0, b"")
        outcome = encode_outcome(accepted_again(record))
        return Resolved(self.seq, Fate.DECIDED, 0, outcome)

    def _fate_of_number(self, session: int, number: int) -> Resolved:
        state = self._sessions.get(session)
        if state is None or number < 1:
            return Resolved(self.seq, Fate.UNKNOWN, 0, b"")
        if number > state.last:
            if state.closed:
                return Resolved(self.seq, Fate.NEVER, 0, b"")
            return Resolved(self.seq, Fate.UNDECIDED, session, b"")
        result = self._sessions.result(session, number)
        if result is None:
            return Resolved(self.seq, Fate.DROPPED, 0, b"")
        return Resolved(self.seq, Fate.DECIDED, 0, result)

    def levels(self, query: AskLevels) -> Levels:
        level = self._tables.level
        return Levels(self.seq, tuple(level(sku, place).row() for sku, place in query.keys))

    def available(self, query: AskAvailable) -> Number:
        tables = self._tables
        tables.item(query.sku)
        if query.locations is None:
            places = tables.places()
        else:
            places = [tables.place(name) for name in dict.fromkeys(query.locations)]
        total = sum(
            tables.level(query.sku, place.name).available for place in places if place.sellable
        )
        return Number(self.seq, total)

    def item(self, query: AskItem) -> Items:
        cell = self._tables.find_item(query.sku)
        if cell is None:
            raise UnknownItem(f"There is no item {query.sku!r}.")
        return Items(self.seq, (cell.row(),))

    def locations(self, query: AskLocations) -> Locations:
        return Locations(self.seq, tuple(cell.row() for cell in self._tables.places()))

    def items(self, query: AskItems) -> Items:
        self._tables.write()
        where, values = _range("sku", query.prefix)
        if query.after is not None:
            where, values = [*where, "sku > ?"], [*values, query.after]
        rows = self._tables.database.execute(
            "SELECT sku, name, unit, scale, attributes, discontinued, version FROM items"
            f" WHERE {' AND '.join(where)} ORDER BY sku LIMIT ?",
            (*values, query.limit + 1),
        )
        listed, more = _within(
            (_item_row(row) for row in rows), query.limit, self._limits.page_bytes, _item_bytes
        )
        return Items(self.seq, listed, listed[-1].sku if more else None)

    def level_list(self, query: AskLevelList) -> Levels:
        """At most `Limits.page_scan_rows` levels are looked at: a page may be short."""
        self._tables.write()
        where, values = _range("sku", query.prefix)
        if query.after is not None:
            where, values = [*where, "(sku, location) > (?, ?)"], [*values, *query.after]
        keep = ["i.sku IS NOT NULL", "p.name IS NOT NULL"]
        wanted: list[object] = []
        if query.location is not None:
            self._tables.place(query.location)
            keep, wanted = [*keep, "l.location = ?"], [query.location]
        if query.below is not None:
            keep = [*keep, "l.on_hand - l.reserved - l.committed < ?"]
            wanted = [*wanted, query.below]
        scan = f"FROM levels WHERE {' AND '.join(where)} ORDER BY sku, location"
        scanned = self._limits.page_scan_rows
        rows = self._tables.database.execute(
            "SELECT l.sku, l.location, l.on_hand, l.reserved, l.committed, l.version"
            f" FROM (SELECT * {scan} LIMIT ?) l"
            " LEFT JOIN items i ON i.sku = l.sku LEFT JOIN locations p ON p.name = l.location"
            f" WHERE {' AND '.join(keep)} ORDER BY l.sku, l.location LIMIT ?",
            (*values, scanned, *wanted, query.limit + 1),
        )
        listed, more = _within(
            (LevelRow(*row) for row in rows), query.limit, self._limits.page_bytes, _level_bytes
        )
        if more:
            return Levels(self.seq, listed, (listed[-1].sku, listed[-1].location))
        end = self._tables.database.execute(
            f"SELECT sku, location {scan} LIMIT 1 OFFSET ?", (*values, scanned - 1)
        ).fetchone()
        return Levels(self.seq, listed, end)

    def ledger(self, query: AskLedger) -> LedgerPage:
        self._tables.write()
        return ledger_page(self._tables.database, query, self.seq, self._limits)

    def resolve(self, query: AskResolve) -> Resolved:
        return self.fate(query.key)

    def digest(self, query: AskDigest) -> DigestValue:
        self._tables.write()
        return DigestValue(self.seq, digest_of(stock_by_sku(self._tables.database)))


_ANSWERS: dict[type, Callable[[Reader, Any], Answer]] = {
    AskLevels: Reader.levels,
    AskItem: Reader.item,
    AskItems: Reader.items,
    AskLocations: Reader.locations,
    AskLevelList: Reader.level_list,
    AskAvailable: Reader.available,
    AskLedger: Reader.ledger,
    AskResolve: Reader.resolve,
    AskDigest: Reader.digest,
}


def _within(
    rows: Iterable[Listed], limit: int, room_bytes: int, size: Callable[[Any], int]
) -> tuple[tuple[Listed, ...], bool]:
    """At least one row, at most `limit` and about `room_bytes`; and whether there are more."""
    listed: list[Listed] = []
    for row in rows:
        if len(listed) == limit or (listed and room_bytes <= 0):
            return tuple(listed), True
        listed.append(row)
        room_bytes -= size(row)
    return tuple(listed), False


def _item_row(row: tuple[Any, ...]) -> ItemRow:
    sku, name, unit, scale, attributes, discontinued, version = row
    return ItemRow(
        sku, name, unit, scale, decode_attributes(attributes), bool(discontinued), version
    )


def _item_bytes(row: ItemRow) -> int:
    values = sum(len(name) + len(str(value)) for name, value in row.attributes.items())
    return 4 * (len(row.sku) + len(row.name) + values) + 50


def _level_bytes(row: LevelRow) -> int:
    return 4 * (len(row.sku) + len(row.location)) + 50


def _range(column: str, prefix: str) -> tuple[list[str], list[object]]:
    """SQL conditions, at least one, for the texts that begin with `prefix`."""
    end = prefix_end(prefix)
    if end is None:
        return [f"{column} >= ?"], [prefix]
    return [f"{column} >= ?", f"{column} < ?"], [prefix, end]


def prefix_end(prefix: str) -> str | None:
    """The first text after all that begin with `prefix`, by code points; None: there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code == 0xD800:
            code = 0xE000  # surrogates are not text
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return None
