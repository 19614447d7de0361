"""From Python arguments to rows: plain str and int of whatever stands for them exactly.

What does not fit is handed on unchanged: the checks of `commands` name the error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from operator import index
from typing import Any

from distinv.errors import InvalidRequest
from distinv.inventory import commands
from distinv.inventory.commands import About, LineRow
from distinv.inventory.rules import LIMITS, check_text
from distinv.model import EPOCH, AttributeValue, Cursor, Line, Lines


def text(value: Any) -> Any:
    """A plain str of any kind of str (an enum's, a data frame's); the checks judge the rest."""
    return str.__str__(value) if isinstance(value, str) and type(value) is not str else value


def whole(value: Any) -> Any:
    """A plain int of anything that is exactly one, but not of a bool; the checks judge the rest."""
    if type(value) is int or value is None or isinstance(value, bool):
        return value
    try:
        return index(value)
    except TypeError:
        return value


def rows_of(lines: Lines) -> tuple[LineRow, ...]:
    if isinstance(lines, Line):
        lines = (lines,)
    if isinstance(lines, Mapping):
        return tuple(LineRow(text(sku), whole(count)) for sku, count in lines.items())
    if isinstance(lines, str | bytes) or not isinstance(lines, Iterable):
        raise InvalidRequest(f"Lines are a mapping from sku to quantity, or Line values: {lines!r}")
    rows = []
    for line in lines:
        if not isinstance(line, Line):
            raise InvalidRequest(f"A line is a Line(sku, quantity, location), not {line!r:.60}.")
        rows.append(LineRow(text(line.sku), whole(line.quantity), text(line.location)))
    return tuple(rows)


def about_of(
    reason: str | None, reference: str | None, note: str | None, occurred_at: datetime | None
) -> About:
    if reason is None and reference is None and note is None and occurred_at is None:
        return commands.NOTHING
    for what, value in (("A reason", reason), ("A reference", reference), ("A note", note)):
        if value is not None:
            check_text(what, value, LIMITS.note_chars)
    occurred_at_us = None if occurred_at is None else time_us_of(occurred_at)
    return About(text(reason) or "", text(reference) or "", text(note) or "", occurred_at_us)


def filled(about: About, common: About) -> About:
    return About(
        about.reason or common.reason,
        about.reference or common.reference,
        about.note or common.note,
        common.occurred_at_us if about.occurred_at_us is None else about.occurred_at_us,
    )


def time_us_of(at: datetime) -> int:
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise InvalidRequest("A time is a datetime with its time zone.")
    return (at - EPOCH) // timedelta(microseconds=1)


def attributes_of(
    attributes: Mapping[str, AttributeValue] | None,
) -> dict[str, AttributeValue] | None:
    if attributes is None:
        return None
    if not isinstance(attributes, Mapping):
        raise InvalidRequest("attributes are a mapping.")
    for name in attributes:
        check_text("An attribute's name", name, LIMITS.name_chars)
    return {text(name): attributes[name] for name in sorted(attributes)}


def pair_of(key: tuple[str, str]) -> tuple[str, str]:
    if not isinstance(key, tuple | list) or len(key) != 2:
        raise InvalidRequest(f"A key is a sku or (sku, location), not {key!r:.60}.")
    return text(key[0]), text(key[1])


def level_cursor(after: Cursor) -> tuple[str, str]:
    """A page's `next`, or a sku: after all of its levels."""
    if isinstance(after, str):
        return text(after), "\U0010ffff"
    sku, location = after
    if not isinstance(sku, str) or not isinstance(location, str):
        raise InvalidRequest("after is a sku, or the next of a page of levels.")
    return sku, location


def ledger_cursor(after: Cursor | int, newest_first: bool) -> tuple[int, int]:
    """A page's `next`, or a seq: beyond all of its lines in the direction of the list."""
    if isinstance(after, int) and not isinstance(after, bool):
        return (after, 0) if newest_first else (after, 1 << 32)
    if isinstance(after, tuple) and len(after) == 2:
        seq, line = after
        if isinstance(seq, int) and isinstance(line, int):
            return seq, line
    raise InvalidRequest("after is a seq, or the next of a page of the ledger.")
