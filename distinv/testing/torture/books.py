"""The inventory on a blackboard: what every answer is compared with.

Written from docs/inventory.md, and it shares nothing with the product, not even its encoding:
commands are what a history holds of them, names and plain arguments.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any, TypeAlias

from attrs import define, field, frozen

from distinv.testing.torture.history import Arguments

Place: TypeAlias = tuple[str, str]
"""(sku, location)"""
LedgerRow: TypeAlias = tuple[str, str, int, int, str]
"""(sku, location, delta, on_hand_after, kind)"""


@frozen
class Result:
    """What a command must have been answered."""

    code: str = ""
    """Of the refusal; "" when it is accepted."""
    levels: tuple[tuple[str, str, int, int], ...] = ()
    """(sku, location, on_hand, version) of every level named, sorted."""
    shortages: tuple[tuple[str, str, int, int], ...] = ()
    """(sku, location, requested, available), sorted."""
    current: int | None = None
    """What is on hand where a compare failed."""
    rows: tuple[LedgerRow, ...] = ()
    """What stands in the ledger, in order."""


class _Refused(Exception):
    def __init__(self, result: Result) -> None:
        super().__init__(result.code)
        self.result = result


@define
class _Past:
    """One level: what it was after each seq that named it."""

    seqs: list[int] = field(factory=list)
    on_hand: list[int] = field(factory=list)


class _Attempt:
    """One command on top of the books, not entered yet."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.levels: dict[Place, int] = {}
        self.rows: list[LedgerRow] = []

    def on_hand(self, place: Place) -> int:
        return self.levels.get(place, self._books.levels.get(place, 0))

    def check_known(self, places: Iterable[Place]) -> None:
        for sku, location in places:
            if sku not in self._books.items:
                raise _Refused(Result("unknown_item"))
            if location not in self._books.locations:
                raise _Refused(Result("unknown_location"))

    def check_enough(self, wanted: Iterable[tuple[Place, int]]) -> None:
        short = sorted(
            (*place, quantity, self.on_hand(place))
            for place, quantity in wanted
            if self.on_hand(place) < quantity
        )
        if short:
            raise _Refused(Result("insufficient_stock", shortages=tuple(short)))

    def move(self, kind: str, place: Place, delta: int) -> None:
        self.levels[place] = self.on_hand(place) + delta
        self.rows.append((*place, delta, self.levels[place], kind))


class Books:
    """All stock, and what it was at every seq."""

    def __init__(self) -> None:
        self.items: dict[str, None] = {}
        self.locations: dict[str, None] = {"main": None}
        self.levels: dict[Place, int] = {}
        self._past: dict[Place, _Past] = {}

    def apply(self, seq: int, operation: str, arguments: Arguments) -> Result:
        """Execute a command at its place in the order; `seq` only grows.

        Raises KeyError, AttributeError, TypeError or ValueError for what is no command.
        """
        if operation == "put_item":
            self.items[arguments["sku"]] = None
            return Result()
        if operation == "put_location":
            self.locations[arguments["name"]] = None
            return Result()
        attempt = _Attempt(self)
        try:
            for name, given in _operations(operation, arguments):
                _OPERATIONS[name](attempt, given)
        except _Refused as refusal:
            return refusal.result
        for place, on_hand in attempt.levels.items():
            self._enter(seq, place, on_hand)
        levels = sorted((*place, on_hand, seq) for place, on_hand in attempt.levels.items())
        return Result(levels=tuple(levels), rows=tuple(attempt.rows))

    def _enter(self, seq: int, place: Place, on_hand: int) -> None:
        self.levels[place] = on_hand
        past = self._past.setdefault(place, _Past())
        past.seqs.append(seq)
        past.on_hand.append(on_hand)

    def level_at(self, place: Place, seq: int) -> tuple[int, int]:
        """(on_hand, version) of a level right after `seq`."""
        past = self._past.get(place)
        at = bisect(past.seqs, seq) if past is not None else 0
        if past is None or at == 0:
            return (0, 0)
        return (past.on_hand[at - 1], past.seqs[at - 1])

    def digest(self) -> str:
        """The inventory digest of what there is now."""
        sums: dict[str, int] = {}
        for (sku, _), on_hand in self.levels.items():
            sums[sku] = sums.get(sku, 0) + on_hand
        rows = sorted([sku, on_hand] for sku, on_hand in sums.items() if on_hand)
        return sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _operations(operation: str, arguments: Arguments) -> list[tuple[str, Arguments]]:
    if operation != "execute":
        return [(operation, arguments)]
    return [(part["operation"], part["arguments"]) for part in arguments["operations"]]


def _lines(arguments: Arguments, location: str) -> list[tuple[Place, int]]:
    return [((sku, location), quantity) for sku, quantity in arguments["lines"].items()]


def _home(arguments: Arguments) -> str:
    return str(arguments.get("location", "main"))


def _receive(attempt: _Attempt, arguments: Arguments) -> None:
    lines = _lines(arguments, _home(arguments))
    attempt.check_known(place for place, _ in lines)
    for place, quantity in lines:
        attempt.move("receive", place, quantity)


def _ship(attempt: _Attempt, arguments: Arguments) -> None:
    lines = _lines(arguments, _home(arguments))
    attempt.check_known(place for place, _ in lines)
    attempt.check_enough(lines)
    for place, quantity in lines:
        attempt.move("ship", place, -quantity)


def _adjust(attempt: _Attempt, arguments: Arguments) -> None:
    lines = _lines(arguments, _home(arguments))
    attempt.check_known(place for place, _ in lines)
    attempt.check_enough((place, -delta) for place, delta in lines)
    for place, delta in lines:
        attempt.move("adjust", place, delta)


def _set_on_hand(attempt: _Attempt, arguments: Arguments) -> None:
    place = (arguments["sku"], _home(arguments))
    attempt.check_known([place])
    current = attempt.on_hand(place)
    if arguments.get("if_on_hand", current) != current:
        raise _Refused(Result("stale_version", current=current))
    attempt.move("set_on_hand", place, arguments["quantity"] - current)


def _transfer(attempt: _Attempt, arguments: Arguments) -> None:
    source, destination = arguments["source"], arguments["destination"]
    lines = _lines(arguments, source)
    attempt.check_known((sku, end) for (sku, _), _ in lines for end in (source, destination))
    attempt.check_enough(lines)
    for (sku, _), quantity in lines:
        attempt.move("transfer", (sku, source), -quantity)
        attempt.move("transfer", (sku, destination), quantity)


_OPERATIONS: dict[str, Callable[[_Attempt, dict[str, Any]], None]] = {
    "receive": _receive,
    "ship": _ship,
    "adjust": _adjust,
    "set_on_hand": _set_on_hand,
    "transfer": _transfer,
}
