"""What commands print: tables for people, one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs


def plain(value: Any) -> Any:
    """A value of the model as what JSON knows; times become ISO 8601."""
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def print_json(value: Mapping[str, Any]) -> None:
    """One object on one line."""
    print(json.dumps(plain(value), ensure_ascii=False), flush=True)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = ""
) -> None:
    """A table; numbers stand on the right. On a terminal rich draws it, if it is installed."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [
        bool(rows) and all(isinstance(row[at], int | float) for row in rows)
        for at in range(len(columns))
    ]
    if not (sys.stdout.isatty() and _draw(columns, cells, right, title)):
        _print_plain(columns, cells, right, title)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    # A sku is anything: what would move the cursor is shown as a hole.
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )


def _draw(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], title: str
) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(title=title or None, title_justify="left")
    for column, is_number in zip(columns, right):
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
    return True


def _print_plain(
    columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[bool], title: str
) -> None:
    widths = [
        max(len(text) for text in (column, *(row[at] for row in cells)))
        for at, column in enumerate(columns)
    ]
    if title:
        print(title)
    for row in ([*columns], ["-" * width for width in widths], *cells):
        aligned = (
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(row, widths, right)
        )
        print("  ".join(aligned).rstrip())
