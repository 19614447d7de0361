"""The commands about the stock itself: look at it, move it, read its ledger."""

from __future__ import annotations

import argparse
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from distinv.cli.options import Commands, add_client, row_count, whole, with_client
from distinv.cli.output import plain, print_json, print_table
from distinv.cli.problems import DONE
from distinv.errors import InvalidQuantity, InvalidRequest

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient
    from distinv.model import Item, LedgerEntry, Level, Line, Location, Page, Receipt

T = TypeVar("T")

_LEVEL_COLUMNS = ("sku", "location", "on_hand", "reserved", "committed", "available", "version")
_ITEM_COLUMNS = ("sku", "name", "unit", "scale", "discontinued", "version")
_LEDGER_COLUMNS = (
    *("seq", "at", "sku", "location", "delta", "on_hand_after", "kind", "reason", "reference"),
    *("actor", "note"),
)
_WHOLE = re.compile(r"[+-]?[0-9]+")


def add_to(commands: Commands) -> None:
    _add_catalogue(commands)
    _add_looks(commands)
    _add_moves(commands)


# --- what the commands take -------------------------------------------------------------------


def _add(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[:1].upper() + text[1:] + "."
    )
    add_client(parser)
    parser.set_defaults(run=run)
    return parser


def _add_catalogue(commands: Commands) -> None:
    items = _add(commands, "items", _items, "list items, or put, show or delete one")
    items.add_argument(
        "action", nargs="?", choices=("list", "put", "show", "delete"), default="list"
    )
    items.add_argument("sku", nargs="?")
    items.add_argument("--prefix", default="", help="list only skus that begin with it")
    _add_limit(items)
    items.add_argument("--name", help="put: what it is called")
    items.add_argument("--unit", help="put: what is counted, such as kg (each)")
    items.add_argument("--scale", type=whole, help="put: decimal places of a quantity (0)")
    items.add_argument(
        "--discontinued",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="put: nothing more of it is received",
    )
    items.add_argument("--if-version", type=whole, help="put, delete: only if this is its version")
    _add_about(items)
    places = _add(commands, "locations", _locations, "list locations, or put or delete one")
    places.add_argument("action", nargs="?", choices=("list", "put", "delete"), default="list")
    places.add_argument("name", nargs="?")
    places.add_argument("--not-sellable", action="store_true", help="put: for quarantine and such")
    _add_about(places)


def _add_looks(commands: Commands) -> None:
    level = _add(commands, "level", _level, "show the stock of one sku at one location")
    level.add_argument("sku")
    level.add_argument("--location", default="main")
    _add_local(level)
    levels = _add(commands, "levels", _levels, "show the stock of several skus, or list all of it")
    levels.add_argument("sku", nargs="*", help="these, in one consistent cut; else a list")
    levels.add_argument("--location", help="only at this location")
    levels.add_argument("--prefix", default="", help="list only skus that begin with it")
    levels.add_argument("--below", type=whole, help="list only where less than this is available")
    _add_limit(levels)
    _add_local(levels)
    ledger = _add(commands, "ledger", _ledger, "show what moved the stock, line by line")
    ledger.add_argument("--sku")
    ledger.add_argument("--location")
    ledger.add_argument("--reference", help="the order, invoice or other document")
    ledger.add_argument("--since", type=_since, help="a seq, or a time such as 2026-01-31T08:00")
    ledger.add_argument("--newest-first", action="store_true")
    _add_limit(ledger)
    _add_local(ledger)
    digest = _add(commands, "digest", _digest, "show the fingerprint of all stock")
    _add_local(digest)
    resolve = _add(
        commands, "resolve", _resolve, "ask what became of a command whose outcome was unknown"
    )
    resolve.add_argument("idempotency_key", metavar="KEY")


def _add_moves(commands: Commands) -> None:
    for name, text in (
        ("receive", "add what came in"),
        ("ship", "take what goes out: all lines, or none"),
        ("adjust", "correct by signed quantities"),
    ):
        parser = _add(commands, name, _move, text)
        parser.add_argument("line", nargs="+", metavar="SKU=QUANTITY")
        parser.add_argument("--location", default="main")
        parser.set_defaults(move=name)
        _add_about(parser)
    transfer = _add(commands, "transfer", _transfer, "move stock from one location to another")
    transfer.add_argument("line", nargs="+", metavar="SKU=QUANTITY")
    transfer.add_argument("--from", dest="source", metavar="LOCATION", required=True)
    transfer.add_argument("--to", dest="destination", metavar="LOCATION", required=True)
    _add_about(transfer)


def _add_about(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", help="such as sold, returned, damaged")
    parser.add_argument("--reference", help="your order, invoice or other document")
    parser.add_argument("--note")
    parser.add_argument(
        "--idempotency-key", metavar="KEY", help="the same key takes effect once, however often"
    )


def _add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--limit", metavar="N", type=row_count, default=100, help="so many rows (100); 0: all"
    )


def _add_local(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--local", action="store_true", help="ask one server at once; it may lag behind"
    )


def _since(text: str) -> int | datetime:
    """A time without a zone is this machine's."""
    try:
        return int(text) if text.isdigit() else datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a seq nor a time such as 2026-01-31T08:00"
        ) from None


def parse_line(text: str) -> Line:
    """Read SKU=QUANTITY. Raises InvalidQuantity for what is no whole number, InvalidRequest."""
    from distinv.model import Line

    sku, equals, quantity = text.rpartition("=")
    if not equals:
        raise InvalidRequest(f"{text!r} is no line: give SKU=QUANTITY, such as 85123A=6")
    if not _WHOLE.fullmatch(quantity):
        raise InvalidQuantity(f"{quantity!r} of {sku} is not a whole number")
    return Line(sku, int(quantity))


# --- what they do -----------------------------------------------------------------------------


def _about(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "reason": options.reason,
        "reference": options.reference,
        "note": options.note,
        "idempotency_key": options.idempotency_key,
    }


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    return {"read": "local" if options.local else "linearizable"}


def _needed(value: str | None, what: str, options: argparse.Namespace) -> str:
    if value is None:
        raise InvalidRequest(f"{options.action} needs {what}")
    return value


async def _pages(limit: int, page: Callable[[Any, int], Awaitable[Page[T]]]) -> tuple[list[T], int]:
    """Up to `limit` rows of a paged list, 0 for all; and the seq at which they were read."""
    rows: list[T] = []
    after, most = None, 1_000
    while True:
        found = await page(after, min(most, limit - len(rows)) if limit else most)
        rows += found.items
        after = found.next
        if after is None or (limit and len(rows) >= limit):
            return rows, found.as_of


def _items(options: argparse.Namespace) -> int:
    if options.action == "list":
        rows, seq = with_client(
            options,
            lambda client: _pages(
                options.limit,
                lambda after, limit: client.list_items(options.prefix, after, limit),
            ),
        )
        return _show(options, {"items": rows, "as_of": seq}, _ITEM_COLUMNS, rows)
    sku = _needed(options.sku, "a sku", options)
    if options.action == "delete":
        receipt = with_client(
            options,
            lambda client: client.delete_item(
                sku, if_version=options.if_version, **_about(options)
            ),
        )
        return _show_receipt(options, receipt)
    item: Item = with_client(options, lambda client: _item(client, options, sku))
    return _show(options, plain(item), _ITEM_COLUMNS, [item])


async def _item(client: InventoryClient, options: argparse.Namespace, sku: str) -> Item:
    if options.action == "show":
        return await client.get_item(sku)
    return await client.put_item(
        sku,
        name=options.name,
        unit=options.unit,
        scale=options.scale,
        discontinued=options.discontinued,
        if_version=options.if_version,
        **_about(options),
    )


def _locations(options: argparse.Namespace) -> int:
    columns = ("name", "sellable", "version")
    if options.action == "list":
        rows: Sequence[Location] = with_client(options, lambda client: client.list_locations())
        return _show(options, {"locations": rows}, columns, rows)
    name = _needed(options.name, "a name", options)
    if options.action == "delete":
        return _show_receipt(
            options,
            with_client(options, lambda client: client.delete_location(name, **_about(options))),
        )
    location = with_client(
        options,
        lambda client: client.put_location(
            name, sellable=not options.not_sellable, **_about(options)
        ),
    )
    return _show(options, plain(location), columns, [location])


def _level(options: argparse.Namespace) -> int:
    level: Level = with_client(
        options,
        lambda client: client.level(options.sku, options.location, **_reading(options)),
    )
    return _show(options, plain(level), _LEVEL_COLUMNS, [level])


def _levels(options: argparse.Namespace) -> int:
    rows, seq = with_client(options, lambda client: _find_levels(client, options))
    return _show(options, {"levels": rows, "as_of": seq}, _LEVEL_COLUMNS, rows)


async def _find_levels(
    client: InventoryClient, options: argparse.Namespace
) -> tuple[Sequence[Level], int]:
    if options.sku:
        keys = [(sku, options.location or "main") for sku in options.sku]
        levels = await client.levels(keys, **_reading(options))
        return levels, levels[0].as_of
    return await _pages(
        options.limit,
        lambda after, limit: client.list_levels(
            options.prefix, options.location, options.below, after, limit, **_reading(options)
        ),
    )


def _ledger(options: argparse.Namespace) -> int:
    rows: list[LedgerEntry]
    rows, seq = with_client(
        options,
        lambda client: _pages(
            options.limit,
            lambda after, limit: client.ledger(
                sku=options.sku,
                location=options.location,
                reference=options.reference,
                since=options.since,
                newest_first=options.newest_first,
                after=after,
                limit=limit,
                **_reading(options),
            ),
        ),
    )
    return _show(options, {"ledger": rows, "as_of": seq}, _LEDGER_COLUMNS, rows)


def _digest(options: argparse.Namespace) -> int:
    digest = with_client(options, lambda client: client.digest(**_reading(options)))
    if options.json:
        print_json({"digest": digest.value, "seq": digest.seq})
    else:
        print(f"{digest.value} at seq {digest.seq}")
    return DONE


def _resolve(options: argparse.Namespace) -> int:
    found = with_client(
        options,
        lambda client: client.resolve(options.idempotency_key),
    )
    if isinstance(found, Exception):
        raise found
    if found is not None:
        return _show_receipt(options, found)
    if options.json:
        print_json({"receipt": None})
    else:
        print("it has not been applied")
    return DONE


def _move(options: argparse.Namespace) -> int:
    lines = [parse_line(text) for text in options.line]
    about = _about(options)

    async def work(client: InventoryClient) -> Receipt:
        command = {"receive": client.receive, "ship": client.ship, "adjust": client.adjust}
        return await command[options.move](lines, location=options.location, **about)

    return _show_receipt(options, with_client(options, work))


def _transfer(options: argparse.Namespace) -> int:
    lines = [parse_line(text) for text in options.line]
    receipt = with_client(
        options,
        lambda client: client.transfer(
            lines, options.source, options.destination, **_about(options)
        ),
    )
    return _show_receipt(options, receipt)


# --- what they print --------------------------------------------------------------------------


def _show(
    options: argparse.Namespace,
    value: dict[str, Any],
    columns: Sequence[str],
    rows: Sequence[object],
) -> int:
    if options.json:
        print_json(value)
    else:
        print_table(columns, [[getattr(row, name) for name in columns] for row in rows])
    return DONE


def _show_receipt(options: argparse.Namespace, receipt: Receipt) -> int:
    if options.json:
        print_json(plain(receipt))
        return DONE
    again = ", as it was before: the key had been used" if receipt.replayed else ""
    print(f"seq {receipt.seq} at {receipt.at.astimezone():%Y-%m-%d %H:%M:%S}{again}")
    if receipt.levels:
        rows = [[getattr(level, name) for name in _LEVEL_COLUMNS] for level in receipt.levels]
        print_table(_LEVEL_COLUMNS, rows)
    return DONE
