"""The invariants of a store, derived anew from its rows: no cache and no counter is believed.

Reads everything: for tests and for the verification of a data directory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from distinv.config import Limits
from distinv.core.sessions import SessionTable
from distinv.inventory.cells import DIGEST_MODULUS, contribution_of
from distinv.inventory.history import Kind, Record, read_records
from distinv.inventory.rules import LIMITS
from distinv.inventory.schema import StoreState
from distinv.inventory.session_rows import SessionRows
from distinv.inventory.tables import decode_attributes

Key = tuple[str, str]


def problems(database: sqlite3.Connection, seq: int, digest_sum: int, limits: Limits) -> list[str]:
    """What is wrong with a store that has come to `seq`, in plain words; empty when nothing."""
    return [
        *_level_problems(database, limits),
        *_ledger_problems(database, seq),
        *_key_problems(database, limits),
        *_place_problems(database),
        *_digest_problems(database, digest_sum),
    ]


def copy_problems(database: sqlite3.Connection, state: StoreState) -> Iterator[str]:
    """What is wrong with a copied store: its rows do not add up to what its state says.

    Unlike `problems` it does not replay the ledger, which may be many times as large as the
    stock; that the file is whole and sound is checked elsewhere. Whoever made it may have meant
    ill: what passes here can be opened, and worked on.
    """
    yield from _digest_problems(database, int.from_bytes(state.digest_sum, "big"))
    yield from _form_problems(database, state)
    (keys,) = database.execute("SELECT count(*) FROM keys").fetchone()
    if keys != state.keys:
        yield f"there are {keys} keys, the state says {state.keys}"
    (last,) = database.execute("SELECT coalesce(max(seq), 0) FROM ledger").fetchone()
    if last > state.seq:
        yield f"the ledger has seq {last}, the state says {state.seq}"


def _form_problems(database: sqlite3.Connection, state: StoreState) -> Iterator[str]:
    """SQLite keeps any kind of value in any column; and nobody can go on behind the last number."""
    numbers = (state.index, state.seq, state.keys, state.voters_index)
    if min(numbers) < 0 or max(numbers) > ROOM or state.voters_index > state.index:
        yield "its position is out of range"
    if not 0 <= state.time_us <= COUNT_MAX:
        yield "its time is out of range"
    for table, wrong in _WRONG.items():
        if database.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone() is not None:
            yield f"a row of {table} holds what it cannot"
    try:
        some = database.execute("SELECT attributes FROM items WHERE attributes <> x'80'")
        for (attributes,) in some:
            decode_attributes(attributes)
        SessionTable(LIMITS, SessionRows(database).read())
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        yield f"a row of sessions, or the attributes of an item, cannot be read: {error}"


def _is_not(kind: str, *columns: str) -> str:
    return " OR ".join(f"typeof({column}) <> '{kind}'" for column in columns)


def _is_no_count(*columns: str) -> str:
    return f"{_is_not('integer', *columns)} OR " + " OR ".join(
        f"{column} < 0 OR {column} > {COUNT_MAX}" for column in columns
    )


ROOM = 1 << 50
"""Above it the id of a session would not fit its 63 bits; no log comes near."""
COUNT_MAX = 1 << 62
"""Of seqs, versions, times: they can still be counted up."""
_WRONG = {
    "items": f"{_is_not('text', 'sku', 'name', 'unit')} OR {_is_not('blob', 'attributes')}"
    f" OR {_is_no_count('scale', 'discontinued', 'version')} OR scale > {LIMITS.scale_max}",
    "locations": f"{_is_not('text', 'name')} OR {_is_no_count('sellable', 'version', 'stocked')}",
    "levels": f"{_is_not('text', 'sku', 'location')}"
    f" OR {_is_not('integer', 'on_hand', 'reserved', 'committed')}"
    " OR min(on_hand, reserved, committed) < 0 OR reserved > on_hand - committed"
    f" OR {_is_no_count('version', 'chain')}",
    "ledger": f"{_is_not('text', 'actor')} OR {_is_not('blob', 'body')}"
    f" OR {_is_no_count('seq', 'time_us')}",
    "ledger_references": f"{_is_not('text', 'reference')} OR {_is_no_count('seq')}",
    "keys": f"{_is_not('text', 'key')} OR {_is_not('blob', 'hash')}"
    f" OR {_is_no_count('seq', 'time_us')}",
    "sessions": f"{_is_not('blob', 'body')} OR {_is_no_count('id')}",
}
"""What no row of a table may be, as SQL."""


def _level_problems(database: sqlite3.Connection, limits: Limits) -> Iterator[str]:
    rows = database.execute("SELECT sku, location, on_hand, reserved, committed FROM levels")
    for sku, location, on_hand, reserved, committed in rows:
        if min(on_hand, reserved, committed) < 0:
            yield f"{sku!r} at {location!r} is negative"
        if reserved + committed > on_hand:
            yield f"{sku!r} at {location!r} is oversold"
        if on_hand > limits.level_max:
            yield f"{sku!r} at {location!r} is out of range"
    stray = database.execute(
        "SELECT DISTINCT l.sku, l.location FROM levels l"
        " LEFT JOIN items i ON i.sku = l.sku LEFT JOIN locations p ON p.name = l.location"
        " WHERE l.on_hand > 0 AND (i.sku IS NULL OR p.name IS NULL)"
    )
    for sku, location in stray:
        yield f"there is stock of {sku!r} at {location!r}, which is not in the catalogue"


def _ledger_problems(database: sqlite3.Connection, seq: int) -> Iterator[str]:
    """Replays the ledger: running sums, chains, transfers, references, times."""
    sums: dict[Key, int] = {}
    chains: dict[Key, int] = {}
    time_us = 0
    for record in read_records(database, -(2**63), 2**63 - 1):
        if not 1 <= record.seq <= seq:
            yield f"the ledger has seq {record.seq}, the store has come to {seq}"
        if record.time_us < time_us:
            yield f"seq {record.seq} is older than the one before"
        time_us = record.time_us
        yield from _record_problems(record, sums, chains)
        yield from _reference_problems(database, record)
    levels = {
        (sku, location): (on_hand, chain)
        for sku, location, on_hand, chain in database.execute(
            "SELECT sku, location, on_hand, chain FROM levels"
        )
    }
    for key in sorted(levels.keys() | sums.keys()):
        if levels.get(key) != (sums.get(key), chains.get(key)):
            yield f"{key}: the level is {levels.get(key)}, the ledger says {sums.get(key)}"


def _record_problems(record: Record, sums: dict[Key, int], chains: dict[Key, int]) -> Iterator[str]:
    for effect in record.effects:
        for line in effect.lines:
            key = line.sku, line.location
            sums[key] = sums.get(key, 0) + line.delta
            if sums[key] != line.on_hand:
                yield f"seq {record.seq}: {key} should be {sums[key]}, not {line.on_hand}"
            if line.previous != chains.get(key, 0):
                yield f"seq {record.seq}: the chain of {key} is broken"
            chains[key] = record.seq
        if effect.kind == Kind.TRANSFER and sum(line.delta for line in effect.lines) != 0:
            yield f"seq {record.seq}: a transfer does not sum to zero"


def _reference_problems(database: sqlite3.Connection, record: Record) -> Iterator[str]:
    for effect in record.effects:
        reference = effect.about.reference
        if reference:
            found = database.execute(
                "SELECT 1 FROM ledger_references WHERE reference = ? AND seq = ?",
                (reference, record.seq),
            ).fetchone()
            if found is None:
                yield f"seq {record.seq} is not found by its reference"


def _key_problems(database: sqlite3.Connection, limits: Limits) -> Iterator[str]:
    (count,) = database.execute("SELECT count(*) FROM keys").fetchone()
    if count > limits.keys_max:
        yield f"there are {count} keys"
    missing = database.execute(
        "SELECT key FROM keys LEFT JOIN ledger ON ledger.seq = keys.seq WHERE ledger.seq IS NULL"
    )
    for (key,) in missing:
        yield f"the key {key!r} names a seq that is not in the ledger"


def _place_problems(database: sqlite3.Connection) -> Iterator[str]:
    rows = database.execute(
        "SELECT name, stocked, (SELECT count(*) FROM levels"
        " WHERE location = name AND on_hand > 0) FROM locations"
    )
    for name, stocked, found in rows:
        if stocked != found:
            yield f"{name!r} counts {stocked} stocked levels and has {found}"


def _digest_problems(database: sqlite3.Connection, digest_sum: int) -> Iterator[str]:
    tables = (
        ("item", "items"),
        ("location", "locations"),
        ("level", "levels"),
        ("key", "keys"),
        ("session", "sessions"),
    )
    total = 0
    for label, table in tables:
        for row in database.execute(f"SELECT '{label}', * FROM {table}"):
            total += contribution_of(row)
    if total % DIGEST_MODULUS != digest_sum:
        yield "the state digest does not match the rows"
