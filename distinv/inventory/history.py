"""What the ledger keeps of an accepted command: one row, holding the effect of each operation.

Each line also holds the seq of its level's previous line, so that the history of one level is a
chain through the rows, and writing a command costs no index entry per line.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from distinv.errors import StorageError
from distinv.inventory.commands import About, Accepted, ItemRow, LevelRow, LocationRow, Row
from distinv.inventory.queries import LedgerRow


class Kind(IntEnum):
    """What an operation was. Append only: the numbers are on disk."""

    RECEIVE = 1
    SHIP = 2
    ADJUST = 3
    SET_ON_HAND = 4
    TRANSFER = 5
    PUT_ITEM = 6
    DELETE_ITEM = 7
    PUT_LOCATION = 8
    DELETE_LOCATION = 9


KIND_NAMES: dict[int, str] = {kind.value: kind.name.lower() for kind in Kind}

DEFAULT_REASONS: dict[int, str] = {
    Kind.RECEIVE.value: "received",
    Kind.SHIP.value: "other",
    Kind.ADJUST.value: "correction",
    Kind.SET_ON_HAND.value: "correction",
    Kind.TRANSFER.value: "transfer",
}


class LineEffect(Row, frozen=True):
    sku: str
    location: str
    delta: int
    on_hand: int
    """This and the next two: as the line left them."""
    reserved: int
    committed: int
    previous: int
    """The seq of the level's ledger line before this one; 0 for the first."""


class Effect(Row, frozen=True):
    """The effect of one operation."""

    kind: int
    about: About
    lines: tuple[LineEffect, ...]
    item: ItemRow | None
    """As put, or as it was when it was deleted."""
    place: LocationRow | None


class Record(msgspec.Struct, frozen=True):
    """One row of the ledger."""

    seq: int
    time_us: int
    actor: str
    effects: tuple[Effect, ...]


_decode_effects = msgspec.msgpack.Decoder(tuple[Effect, ...]).decode

_SELECT = "SELECT seq, time_us, actor, body FROM ledger"


def read_record(database: sqlite3.Connection, seq: int) -> Record | None:
    row = database.execute(f"{_SELECT} WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else _record(row)


def read_records(
    database: sqlite3.Connection, first: int, last: int, *, newest_first: bool = False
) -> Iterator[Record]:
    """The rows of `first..last`, one after the other."""
    order = "DESC" if newest_first else "ASC"
    rows = database.execute(
        f"{_SELECT} WHERE seq BETWEEN ? AND ? ORDER BY seq {order}", (first, last)
    )
    return map(_record, rows)


def _record(row: tuple[int, int, str, bytes]) -> Record:
    seq, time_us, actor, body = row
    try:
        return Record(seq, time_us, actor, _decode_effects(body))
    except (msgspec.MsgspecError, ValueError) as error:
        raise StorageError(f"The ledger's row of seq {seq} is damaged: {error}.") from error


def accepted_again(record: Record) -> Accepted:
    """The outcome that the record's command had, as a replay."""
    levels: dict[tuple[str, str], LevelRow] = {}
    for effect in record.effects:
        for line in effect.lines:
            levels[line.sku, line.location] = LevelRow(
                line.sku, line.location, line.on_hand, line.reserved, line.committed, record.seq
            )
    put = [effect for effect in record.effects if effect.kind in _PUTS]
    return Accepted(
        record.seq,
        record.time_us,
        tuple(levels.values()),
        tuple(effect.item for effect in put if effect.item is not None),
        tuple(effect.place for effect in put if effect.place is not None),
        replayed=True,
    )


_PUTS = (Kind.PUT_ITEM.value, Kind.PUT_LOCATION.value)


def ledger_rows(record: Record) -> list[LedgerRow]:
    """All lines of a record, in their order."""
    return [
        LedgerRow(
            record.seq,
            record.time_us,
            line.sku,
            line.location,
            line.delta,
            line.on_hand,
            KIND_NAMES[effect.kind],
            effect.about.reason or DEFAULT_REASONS.get(effect.kind, ""),
            effect.about.reference,
            record.actor,
            effect.about.note,
            effect.about.occurred_at_us,
        )
        for effect in record.effects
        for line in effect.lines
    ]
