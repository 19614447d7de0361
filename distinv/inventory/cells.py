"""The inventory in memory: one mutable cell per item, location and level.

Cells are what apply works on; `tables.Tables` loads them from the store and writes them back.
`contribution` is what the cell's row, as last written, adds to the state digest (0: no row).
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from distinv.inventory.commands import ItemRow, LevelRow, LocationRow
from distinv.model import AttributeValue

DIGEST_MODULUS = 1 << 128

_encode = msgspec.msgpack.Encoder().encode


def contribution_of(row: tuple[object, ...]) -> int:
    """What one row adds to the state digest; the name of its table is the first value.

    The digest is the sum of the hashes of all rows (Bellare and Micciancio, 1997: AdHash), so
    it follows single changes whatever their order. It tells stores apart that went astray, not
    ones that were forged.
    """
    return int.from_bytes(blake2b(_encode(row), digest_size=16).digest(), "little")


def contribution(*row: object) -> int:
    """The same, for values one by one."""
    return contribution_of(row)


NO_ATTRIBUTES: dict[str, AttributeValue] = {}
"""Of most items. Nobody changes the attributes of a cell: they are exchanged as a whole."""


class _Cell(msgspec.Struct, gc=False, eq=False):
    """There are so many that a collector of garbage that went through them stopped the loop for a
    fifth of a second; no cell leads back to itself."""


class ItemCell(_Cell):
    sku: str
    name: str = ""
    unit: str = "each"
    scale: int = 0
    attributes: dict[str, AttributeValue] = msgspec.field(default_factory=lambda: NO_ATTRIBUTES)
    discontinued: bool = False
    version: int = 0
    live: bool = True
    """False once the item is deleted: levels that refer to it look it up anew."""
    contribution: int = 0

    def row(self) -> ItemRow:
        return ItemRow(
            self.sku,
            self.name,
            self.unit,
            self.scale,
            self.attributes,
            self.discontinued,
            self.version,
        )


class PlaceCell(_Cell):
    name: str
    sellable: bool
    version: int
    stocked: int = 0
    """How many levels here have something on hand."""
    live: bool = True
    contribution: int = 0

    def row(self) -> LocationRow:
        return LocationRow(self.name, self.sellable, self.version)


class LevelCell(_Cell):
    item: ItemCell
    place: PlaceCell
    on_hand: int = 0
    reserved: int = 0
    committed: int = 0
    version: int = 0
    chain: int = 0
    """The seq of the last ledger line of this level, where its history is read from."""
    dirty: bool = False
    contribution: int = 0

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved - self.committed

    def row(self) -> LevelRow:
        return LevelRow(
            self.item.sku,
            self.place.name,
            self.on_hand,
            self.reserved,
            self.committed,
            self.version,
        )
