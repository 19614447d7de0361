"""The tables of a store: cells in memory, rows in SQLite, and the way between them.

Apply changes cells; `write` puts what changed into the open transaction, many rows at a time,
and `commit` ends it. A reader that needs SQL calls `write` first and so sees everything.
"""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from sys import intern
from typing import Any, TypeAlias

import msgspec

from distinv.config import Limits
from distinv.errors import UnknownItem, UnknownLocation
from distinv.inventory.cells import (
    DIGEST_MODULUS,
    NO_ATTRIBUTES,
    ItemCell,
    LevelCell,
    PlaceCell,
    contribution,
)
from distinv.model import MAIN, AttributeValue

_encode = msgspec.msgpack.Encoder().encode
decode_attributes = msgspec.msgpack.Decoder(dict[str, AttributeValue]).decode

_SELECT_LEVEL = (
    "SELECT on_hand, reserved, committed, version, chain FROM levels WHERE sku = ? AND location = ?"
)
_SELECT_ITEM = (
    "SELECT name, unit, scale, attributes, discontinued, version FROM items WHERE sku = ?"
)
_FREED_AT_ONCE = 10_000
"""Levels and items: no flush brings many more, and half a cache is given back in ten."""
_place_of = attrgetter("item.sku", "place.name")

_Levels: TypeAlias = dict[str, dict[str, LevelCell]]
"""By location, then by sku. With texts as keys, and cells that no collector of garbage tracks, none
goes through the dicts either: with a tuple for a key it does, for forty milliseconds."""
_NONE: dict[str, LevelCell] = {}


class Tables:
    """Items, locations, levels and ledger of one store."""

    __slots__ = (
        "_dirty_items",
        "_dirty_levels",
        "_dirty_places",
        "_forgotten",
        "_held",
        "_items",
        "_ledger",
        "_levels",
        "_limits",
        "_old_items",
        "_old_levels",
        "_places",
        "_references",
        "database",
        "digest_sum",
    )

    def __init__(self, database: sqlite3.Connection, limits: Limits, digest_sum: int) -> None:
        self.database = database
        self.digest_sum = digest_sum
        """Sum of the contributions of all rows that count, modulo `DIGEST_MODULUS`."""
        self._limits = limits
        self._items: dict[str, ItemCell | None] = {}
        """None: deleted, and the row is still there."""
        self._levels: _Levels = {}
        """The item of each is in `_items`, the very cell, unless it was deleted."""
        self._held = 0
        """How many there are in `_levels`."""
        self._old_items: dict[str, ItemCell | None] = {}
        """What was used a while ago: as it is in the database, and about to be forgotten."""
        self._old_levels: _Levels = {}
        self._forgotten: list[dict[str, Any]] = []
        """Nobody looks in there any more."""
        self._places: dict[str, PlaceCell] = {}
        self._dirty_items: dict[str, ItemCell] = {}
        self._dirty_places: dict[str, PlaceCell] = {}
        self._dirty_levels: list[LevelCell] = []
        self._ledger: list[tuple[int, int, str, bytes]] = []
        self._references: list[tuple[str, int]] = []
        self._load_places()

    # --- finding cells ------------------------------------------------------------------------

    def find_item(self, sku: str) -> ItemCell | None:
        try:
            return self._items[sku]
        except KeyError:
            pass
        cell = self._old_items.pop(sku, None) or self._load_item(sku)
        if cell is not None:
            self._items[cell.sku] = cell
        return cell

    def item(self, sku: str) -> ItemCell:
        """Raises UnknownItem."""
        cell = self.find_item(sku)
        if cell is None:
            raise UnknownItem(f"There is no item {sku!r}: create it with put_item first.")
        return cell

    def find_place(self, name: str) -> PlaceCell | None:
        return self._places.get(name)

    def place(self, name: str) -> PlaceCell:
        """Raises UnknownLocation."""
        cell = self._places.get(name)
        if cell is None:
            raise UnknownLocation(
                f"There is no location {name!r}: create it with put_location first."
            )
        return cell

    def count_places(self) -> int:
        return len(self._places)

    def places(self) -> list[PlaceCell]:
        """All locations, by name."""
        return [self._places[name] for name in sorted(self._places)]

    def level(self, sku: str, location: str) -> LevelCell:
        """The level, with zeros when nothing ever named it. Raises UnknownItem, UnknownLocation."""
        cell = self._levels.get(location, _NONE).get(sku)
        if cell is not None and cell.item.live and cell.place.live:
            return cell
        item = self.item(sku)
        place = self.place(location)
        if cell is None:
            old = self._old_levels.get(location, _NONE).pop(sku, None)
            cell = old or self._load_level(item, place)
            self._levels.setdefault(place.name, {})[item.sku] = cell  # not the command's own texts
            self._held += 1
        cell.item, cell.place = item, place
        return cell

    def has_stock(self, sku: str) -> bool:
        """Whether there is anything of it anywhere.

        Writes nothing: in the middle of a command the cells may yet be taken back.
        """
        rows = self.database.execute(
            "SELECT location, on_hand, reserved, committed FROM levels WHERE sku = ?", (sku,)
        )
        stock = {location: any(counts) for location, *counts in rows}
        for name in self._places:  # what is old is in the database as it is
            cell = self._levels.get(name, _NONE).get(sku)
            if cell is not None:
                stock[name] = bool(cell.on_hand or cell.reserved or cell.committed)
        return any(stock.values())

    def _load_item(self, sku: str) -> ItemCell | None:
        row = self.database.execute(_SELECT_ITEM, (sku,)).fetchone()
        if row is None:
            return None
        name, unit, scale, attributes, discontinued, version = row
        return ItemCell(
            sku,
            name,
            intern(unit),
            scale,
            decode_attributes(attributes) or NO_ATTRIBUTES,
            bool(discontinued),
            version,
            contribution=contribution("item", sku, *row),
        )

    def _load_level(self, item: ItemCell, place: PlaceCell) -> LevelCell:
        cell = LevelCell(item, place)
        row = self.database.execute(_SELECT_LEVEL, (item.sku, place.name)).fetchone()
        if row is not None:
            cell.on_hand, cell.reserved, cell.committed, cell.version, cell.chain = row
            cell.contribution = contribution("level", item.sku, place.name, *row)
        return cell

    def _load_places(self) -> None:
        rows = self.database.execute("SELECT name, sellable, version, stocked FROM locations")
        for name, sellable, version, stocked in rows:
            cell = self._places[name] = PlaceCell(name, bool(sellable), version, stocked)
            cell.contribution = contribution("location", name, sellable, version, stocked)
        if MAIN not in self._places:
            self.add_place(PlaceCell(MAIN, True, 0))

    # --- changing cells -----------------------------------------------------------------------

    def set_on_hand(self, cell: LevelCell, on_hand: int, version: int, chain: int) -> None:
        if (on_hand == 0) != (cell.on_hand == 0):
            place = cell.place
            place.stocked += 1 if on_hand else -1
            self._dirty_places[place.name] = place
        cell.on_hand = on_hand
        cell.version = version
        cell.chain = chain
        if not cell.dirty:
            cell.dirty = True
            self._dirty_levels.append(cell)

    def change_item(self, cell: ItemCell) -> None:
        """The item's cell was changed, or is new."""
        other = self._dirty_items.get(cell.sku)
        if other is not None:
            cell.contribution = other.contribution
        self._items[cell.sku] = self._dirty_items[cell.sku] = cell

    def remove_item(self, cell: ItemCell) -> None:
        cell.live = False
        self._items[cell.sku] = None
        self._dirty_items[cell.sku] = cell

    def restore_item(self, cell: ItemCell) -> None:
        """Undo `remove_item`."""
        cell.live = True
        self.change_item(cell)

    def add_place(self, cell: PlaceCell) -> None:
        self._places[cell.name] = cell
        self.change_place(cell)

    def change_place(self, cell: PlaceCell) -> None:
        other = self._dirty_places.get(cell.name)
        if other is not None:
            cell.contribution = other.contribution
        self._dirty_places[cell.name] = cell

    def remove_place(self, cell: PlaceCell) -> None:
        cell.live = False
        del self._places[cell.name]
        self._dirty_places[cell.name] = cell

    def restore_place(self, cell: PlaceCell) -> None:
        """Undo `remove_place`."""
        cell.live = True
        self.add_place(cell)

    def add_ledger(self, seq: int, time_us: int, actor: str, body: bytes) -> None:
        self._ledger.append((seq, time_us, actor, body))

    def add_reference(self, reference: str, seq: int) -> None:
        self._references.append((reference, seq))

    # --- writing ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Make sure that a transaction is open."""
        if not self.database.in_transaction:
            self.database.execute("BEGIN IMMEDIATE")

    def write(self) -> None:
        """Put everything that changed into the open transaction, which begins with it."""
        if not (self._ledger or self._dirty_levels or self._dirty_items or self._dirty_places):
            return
        self.begin()
        if self._dirty_levels:
            self._write_levels()
        if self._ledger:
            self.database.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?)", self._ledger)
            self._ledger = []
        if self._references:
            self.database.executemany(
                "INSERT OR IGNORE INTO ledger_references VALUES (?, ?)", self._references
            )
            self._references = []
        if self._dirty_items:
            self._write_items()
        if self._dirty_places:
            self._write_places()

    def trim(self) -> None:
        """Forget what was not used for longest. Only while no cell is in hand.

        Cells go by halves: one half is what was used since the other was, and is the older half
        when it is full. The memory of one that goes is given back bit by bit: all of it at once
        takes some fifty milliseconds.
        """
        most = self._limits.levels_cached // 2
        if self._held > most or len(self._items) > most:
            self.write()
            self._forgotten = [self._old_items, *self._old_levels.values()]
            self._old_levels, self._levels, self._held = self._levels, {}, 0
            self._old_items, self._items = self._items, {}  # none deleted: they were written
        if self._forgotten:
            self._give_back()

    def _give_back(self) -> None:
        room = _FREED_AT_ONCE
        while self._forgotten and room:
            cells = self._forgotten[-1]
            while cells and room:
                cells.popitem()
                room -= 1
            if not cells:
                self._forgotten.pop()

    def _count(self, cell: ItemCell | PlaceCell | LevelCell, new: int) -> None:
        self.digest_sum = (self.digest_sum + new - cell.contribution) % DIGEST_MODULUS
        cell.contribution = new

    def _write_levels(self) -> None:
        rows = []
        change = 0
        cells, self._dirty_levels = self._dirty_levels, []
        cells.sort(key=_place_of)
        for cell in cells:
            cell.dirty = False
            if not cell.version and not cell.contribution:
                continue  # its first change was taken back
            row = (
                cell.item.sku,
                cell.place.name,
                cell.on_hand,
                cell.reserved,
                cell.committed,
                cell.version,
                cell.chain,
            )
            new = contribution("level", *row)
            change += new - cell.contribution
            cell.contribution = new
            rows.append(row)
        self.digest_sum = (self.digest_sum + change) % DIGEST_MODULUS
        self.database.executemany("REPLACE INTO levels VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def _write_items(self) -> None:
        put, gone = [], []
        for sku, cell in self._dirty_items.items():
            if not cell.live:
                gone.append((sku,))
                self._count(cell, 0)
                del self._items[sku]
                continue
            row = (
                sku,
                cell.name,
                cell.unit,
                cell.scale,
                _encode(cell.attributes),
                int(cell.discontinued),
                cell.version,
            )
            self._count(cell, contribution("item", *row))
            put.append(row)
        self._dirty_items = {}
        self.database.executemany("DELETE FROM items WHERE sku = ?", gone)
        self.database.executemany("REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?, ?)", put)

    def _write_places(self) -> None:
        for name, cell in self._dirty_places.items():
            if not cell.live:
                self._count(cell, 0)
                self.database.execute("DELETE FROM locations WHERE name = ?", (name,))
                continue
            row = (name, int(cell.sellable), cell.version, cell.stocked)
            self._count(cell, contribution("location", *row))
            self.database.execute("REPLACE INTO locations VALUES (?, ?, ?, ?)", row)
        self._dirty_places = {}
