"""The inventory digest: the fingerprint of all stock that two clusters can compare.

The first 16 hex digits of the SHA-256 of the JSON text (as Python's `json.dumps` writes it) of
the sorted list of `[sku, on_hand]`, summed over locations, for every sum that is not zero.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import sha256
from itertools import groupby, islice
from json.encoder import encode_basestring_ascii as quote
from operator import itemgetter

_AT_ONCE = 1_000
"""Rows to a piece: a million of them take a second, and not three."""


def digest_of(stock: Iterable[tuple[str, int]]) -> str:
    """The digest of (sku, on_hand) pairs in the order of skus, without zeros."""
    digest, separator = sha256(b"["), ""
    rows = iter(stock)
    while piece := [f"[{quote(sku)}, {on_hand}]" for sku, on_hand in islice(rows, _AT_ONCE)]:
        digest.update(f"{separator}{', '.join(piece)}".encode())
        separator = ", "
    digest.update(b"]")
    return digest.hexdigest()[:16]


def stock_by_sku(database: sqlite3.Connection) -> Iterable[tuple[str, int]]:
    """What `digest_of` takes. Summed here: SQLite's own sum stops at 63 bits."""
    rows = database.execute("SELECT sku, on_hand FROM levels WHERE on_hand > 0 ORDER BY sku")
    for sku, group in groupby(rows, key=itemgetter(0)):
        yield sku, sum(on_hand for _, on_hand in group)
