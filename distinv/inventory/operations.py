"""What each operation does to the stock: first every check, then every change.

An operation that refuses has changed nothing. A command of several operations applies them one
after the other, each on what the one before left, and takes all of them back when one refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from distinv.config import Limits
from distinv.errors import (
    DistinvError,
    InsufficientStock,
    InvalidLocation,
    InvalidQuantity,
    ItemDiscontinued,
    ItemNotEmpty,
    NotFound,
    StaleVersion,
    UnknownItem,
    UnknownLocation,
)
from distinv.inventory.cells import ItemCell, LevelCell, PlaceCell
from distinv.inventory.commands import (
    About,
    Adjust,
    CurrentLevel,
    CurrentVersion,
    DeleteItem,
    DeleteLocation,
    Detail,
    ItemRow,
    LineRow,
    LocationRow,
    Operation,
    PutItem,
    PutLocation,
    Receive,
    SetOnHand,
    Ship,
    ShortageRow,
    Shortages,
    Transfer,
)
from distinv.inventory.history import Kind
from distinv.inventory.tables import Tables
from distinv.model import MAIN


class Refusal(Exception):
    """Stops a command inside apply; the log gets it as a value."""

    def __init__(
        self, kind: type[DistinvError], message: str, detail: Detail | None = None
    ) -> None:
        super().__init__(message)
        self.code = kind.code
        self.message = message
        self.detail = detail


Change: TypeAlias = tuple[LevelCell, int]
"""A level and its delta."""


class Work:
    """One command while it is applied."""

    __slots__ = (
        "_undo",
        "effects",
        "items",
        "levels",
        "limits",
        "locations",
        "seq",
        "tables",
    )

    def __init__(self, tables: Tables, limits: Limits, seq: int, *, undoable: bool) -> None:
        self.tables = tables
        self.limits = limits
        self.seq = seq
        self.effects: list[tuple[object, ...]] = []
        """One `history.Effect` per operation, as a plain tuple."""
        self.levels: dict[tuple[str, str], LevelCell] = {}
        """Every level that was named, in the order of first mention."""
        self.items: list[ItemCell] = []
        self.locations: list[PlaceCell] = []
        self._undo: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = (
            [] if undoable else None
        )

    def apply(self, operation: Operation) -> None:
        """Raises Refusal, without any effect of this operation."""
        try:
            _APPLY[type(operation)](self, operation)
        except NotFound as error:
            raise Refusal(type(error), str(error)) from None

    def undo(self) -> None:
        """Take back every operation applied so far."""
        for function, arguments in reversed(self._undo or ()):
            function(*arguments)

    def remember(self, function: Callable[..., None], *arguments: Any) -> None:
        """How to take back the change that follows."""
        if self._undo is not None:
            self._undo.append((function, arguments))

    def move(self, kind: Kind, about: About, changes: Iterable[Change]) -> None:
        """Make checked changes of on_hand, one ledger line each."""
        seq, tables, lines = self.seq, self.tables, []
        for cell, delta in changes:
            previous = cell.chain
            if self._undo is not None:
                self.remember(tables.set_on_hand, cell, cell.on_hand, cell.version, previous)
            tables.set_on_hand(cell, cell.on_hand + delta, seq, seq)
            sku, location = cell.item.sku, cell.place.name
            self.levels[sku, location] = cell
            lines.append(
                (sku, location, delta, cell.on_hand, cell.reserved, cell.committed, previous)
            )
        self.record(kind, about, lines)

    def record(
        self,
        kind: Kind,
        about: About,
        lines: object = (),
        item: ItemRow | None = None,
        place: LocationRow | None = None,
    ) -> None:
        self.effects.append((kind, about, lines, item, place))


# --- stock ------------------------------------------------------------------------------------


def _summed(work: Work, lines: tuple[LineRow, ...], home: str) -> list[tuple[LevelCell, int]]:
    """The levels that lines name, each once, with the sum of their quantities."""
    level = work.tables.level
    if len(lines) == 1:
        line = lines[0]
        return [(level(line.sku, line.location or home), line.quantity)]
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        key = line.sku, line.location or home
        sums[key] = sums.get(key, 0) + line.quantity
    return [(level(sku, location), quantity) for (sku, location), quantity in sums.items()]


def _receive(work: Work, operation: Receive) -> None:
    changes = _summed(work, operation.lines, operation.location)
    for cell, quantity in changes:
        if cell.item.discontinued:
            raise Refusal(ItemDiscontinued, f"{cell.item.sku!r} is discontinued.")
        _check_room(work, cell, quantity)
    work.move(Kind.RECEIVE, operation.about, changes)


def _ship(work: Work, operation: Ship) -> None:
    wanted = _summed(work, operation.lines, operation.location)
    for cell, _ in wanted:
        if not cell.place.sellable:
            raise Refusal(InvalidLocation, f"Nothing is sold from {cell.place.name!r}.")
    _check_available(wanted)
    work.move(Kind.SHIP, operation.about, [(cell, -quantity) for cell, quantity in wanted])


def _adjust(work: Work, operation: Adjust) -> None:
    changes = _summed(work, operation.lines, operation.location)
    _check_available([(cell, -delta) for cell, delta in changes])
    for cell, delta in changes:
        _check_room(work, cell, delta)
    work.move(Kind.ADJUST, operation.about, changes)


def _set_on_hand(work: Work, operation: SetOnHand) -> None:
    cell = work.tables.level(operation.sku, operation.location)
    if operation.if_version is not None and operation.if_version != cell.version:
        raise _stale(cell, f"version {cell.version}, not {operation.if_version}")
    if operation.if_on_hand is not None and operation.if_on_hand != cell.on_hand:
        raise _stale(cell, f"{cell.on_hand} on hand, not {operation.if_on_hand}")
    delta = operation.quantity - cell.on_hand
    _check_available([(cell, -delta)])
    work.move(Kind.SET_ON_HAND, operation.about, [(cell, delta)])


def _transfer(work: Work, operation: Transfer) -> None:
    tables = work.tables
    sources = _summed(work, operation.lines, operation.source)
    changes: list[Change] = []
    for cell, quantity in sources:
        target = tables.level(cell.item.sku, operation.destination)
        _check_room(work, target, quantity)
        changes += ((cell, -quantity), (target, quantity))
    _check_available(sources)
    work.move(Kind.TRANSFER, operation.about, changes)


def _check_available(wanted: Iterable[tuple[LevelCell, int]]) -> None:
    """All shortages are told, not the first only."""
    short = tuple(
        ShortageRow(cell.item.sku, cell.place.name, quantity, cell.available)
        for cell, quantity in wanted
        if cell.available < quantity
    )
    if short:
        first = short[0]
        more = f", and {len(short) - 1} more" if len(short) > 1 else ""
        raise Refusal(
            InsufficientStock,
            f"{first.requested} of {first.sku!r} wanted at {first.location!r}, "
            f"{first.available} available{more}.",
            Shortages(short),
        )


def _check_room(work: Work, cell: LevelCell, quantity: int) -> None:
    if cell.on_hand + quantity > work.limits.level_max:
        raise Refusal(
            InvalidQuantity, f"{cell.item.sku!r} at {cell.place.name!r} would exceed 63 bits."
        )


def _stale(cell: LevelCell, what: str) -> Refusal:
    message = f"{cell.item.sku!r} at {cell.place.name!r} has {what}."
    return Refusal(StaleVersion, message, CurrentLevel(cell.row()))


# --- catalogue --------------------------------------------------------------------------------


def _put_item(work: Work, operation: PutItem) -> None:
    tables = work.tables
    cell = tables.find_item(operation.sku)
    _check_item_version(operation.sku, cell, operation.if_version)
    if cell is None:
        cell = ItemCell(operation.sku)
        work.remember(tables.remove_item, cell)
    else:
        unit_changes = operation.unit not in (None, cell.unit)
        scale_changes = operation.scale not in (None, cell.scale)
        if (unit_changes or scale_changes) and tables.has_stock(cell.sku):
            raise Refusal(
                ItemNotEmpty, f"The unit and scale of {cell.sku!r} are fixed while there is stock."
            )
        work.remember(_restore_item, tables, cell, cell.row())
    _fill_item(cell, operation, work.seq)
    tables.change_item(cell)
    work.items.append(cell)
    work.record(Kind.PUT_ITEM, operation.about, item=cell.row())


def _fill_item(cell: ItemCell, operation: PutItem, seq: int) -> None:
    if operation.name is not None:
        cell.name = operation.name
    if operation.unit is not None:
        cell.unit = operation.unit
    if operation.scale is not None:
        cell.scale = operation.scale
    if operation.attributes is not None:
        cell.attributes = dict(sorted(operation.attributes.items()))
    if operation.discontinued is not None:
        cell.discontinued = operation.discontinued
    cell.version = seq


def _restore_item(tables: Tables, cell: ItemCell, row: Any) -> None:
    cell.name, cell.unit, cell.scale = row.name, row.unit, row.scale
    cell.attributes, cell.discontinued = row.attributes, row.discontinued
    cell.version = row.version
    tables.change_item(cell)


def _delete_item(work: Work, operation: DeleteItem) -> None:
    cell = work.tables.find_item(operation.sku)
    _check_item_version(operation.sku, cell, operation.if_version)
    if cell is None:
        raise UnknownItem(f"There is no item {operation.sku!r}.")
    if work.tables.has_stock(cell.sku):
        raise Refusal(ItemNotEmpty, f"There is still stock of {cell.sku!r}.")
    work.remember(work.tables.restore_item, cell)
    work.tables.remove_item(cell)
    work.record(Kind.DELETE_ITEM, operation.about, item=cell.row())


def _check_item_version(sku: str, cell: ItemCell | None, wanted: int | None) -> None:
    current = 0 if cell is None else cell.version
    if wanted is not None and wanted != current:
        raise Refusal(
            StaleVersion,
            f"{sku!r} has version {current}, not {wanted}.",
            CurrentVersion(current),
        )


def _put_location(work: Work, operation: PutLocation) -> None:
    tables = work.tables
    cell = tables.find_place(operation.name)
    if cell is None:
        if tables.count_places() >= work.limits.locations_max:
            raise Refusal(
                InvalidLocation, f"There are {work.limits.locations_max} locations already."
            )
        cell = PlaceCell(operation.name, operation.sellable, work.seq)
        work.remember(tables.remove_place, cell)
        tables.add_place(cell)
    else:
        work.remember(_restore_place, tables, cell, cell.sellable, cell.version)
        cell.sellable, cell.version = operation.sellable, work.seq
        tables.change_place(cell)
    work.locations.append(cell)
    work.record(Kind.PUT_LOCATION, operation.about, place=cell.row())


def _restore_place(tables: Tables, cell: PlaceCell, sellable: bool, version: int) -> None:
    cell.sellable, cell.version = sellable, version
    tables.change_place(cell)


def _delete_location(work: Work, operation: DeleteLocation) -> None:
    if operation.name == MAIN:
        raise Refusal(InvalidLocation, f"The location {MAIN!r} stays.")
    cell = work.tables.find_place(operation.name)
    if cell is None:
        raise UnknownLocation(f"There is no location {operation.name!r}.")
    if cell.stocked:
        raise Refusal(ItemNotEmpty, f"There is still stock at {cell.name!r}.")
    work.remember(work.tables.restore_place, cell)
    work.tables.remove_place(cell)
    work.record(Kind.DELETE_LOCATION, operation.about, place=cell.row())


_APPLY: dict[type, Callable[[Work, Any], None]] = {
    PutItem: _put_item,
    DeleteItem: _delete_item,
    PutLocation: _put_location,
    DeleteLocation: _delete_location,
    Receive: _receive,
    Ship: _ship,
    Adjust: _adjust,
    SetOnHand: _set_on_hand,
    Transfer: _transfer,
}
