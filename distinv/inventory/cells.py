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


def contribution(*row: object) -> int:
    """What one row adds to the state digest.

    The digest is the sum of the hashes of all rows (Bellare and Micciancio, 1997: AdHash), so
    it follows single changes whatever their order. It tells stores apart that went astray, not
    ones that were forged.
    """
    return int.from_bytes(blake2b(_encode(row), digest_size=16).digest(), "little")


class ItemCell:
    __slots__ = (
        "attributes",
        "contribution",
        "discontinued",
        "live",
        "name",
        "scale",
        "sku",
        "unit",
        "version",
    )

    def __init__(self, sku: str) -> None:
        self.sku = sku
        self.name = ""
        self.unit = "each"
        self.scale = 0
        self.attributes: dict[str, AttributeValue] = {}
        self.discontinued = False
        self.version = 0
        self.live = True
        """False once the item is deleted: levels that refer to it look it up anew."""
        self.contribution = 0

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


class PlaceCell:
    __slots__ = ("contribution", "live", "name", "sellable", "stocked", "version")

    def __init__(self, name: str, sellable: bool, version: int, stocked: int = 0) -> None:
        self.name = name
        self.sellable = sellable
        self.version = version
        self.stocked = stocked
        """How many levels here have something on hand."""
        self.live = True
        self.contribution = 0

    def row(self) -> LocationRow:
        return LocationRow(self.name, self.sellable, self.version)


class LevelCell:
    __slots__ = (
        "chain",
        "committed",
        "contribution",
        "dirty",
        "item",
        "on_hand",
        "place",
        "reserved",
        "version",
    )

    def __init__(self, item: ItemCell, place: PlaceCell) -> None:
        self.item = item
        self.place = place
        self.on_hand = 0
        self.reserved = 0
        self.committed = 0
        self.version = 0
        self.chain = 0
        """The seq of the last ledger line of this level, where its history is read from."""
        self.dirty = False
        self.contribution = 0

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
