"""Random commands against the inventory as one would write it on a blackboard."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from inventory_kit import Log, outcome

from distinv.config import Limits
from distinv.inventory import calls
from distinv.inventory.commands import Accepted
from distinv.inventory.machine import StateMachine
from distinv.model import Line

SKUS = "ABC"
PLACES = ("main", "back", "hidden")


class Refused(Exception):
    pass


class Plain:
    """Dictionaries and nothing else."""

    def __init__(self) -> None:
        self.items: dict[str, bool] = {}
        """Discontinued?"""
        self.places = {"main": True}
        """Sellable?"""
        self.stock: dict[tuple[str, str], int] = {}
        self.seq = 0
        self.keys: dict[str, tuple[Any, int, dict[tuple[str, str], int]]] = {}

    def apply(self, ops: list[Any], key: str | None) -> tuple[str, int, dict[tuple[str, str], int]]:
        """Code ("" when accepted), seq and the levels named."""
        payload = [self._payload(op) for op in ops]
        if key is not None and key in self.keys:
            known, seq, levels = self.keys[key]
            if known == payload:
                return "", seq, levels
            self.seq += 1
            return "idempotency_key_reused", self.seq, {}
        self.seq += 1
        before = deepcopy((self.items, self.places, self.stock))
        named: dict[tuple[str, str], int] = {}
        try:
            for op in ops:
                for at in getattr(self, op[0])(*op[1:]):
                    named[at] = 0
        except Refused as refused:
            self.items, self.places, self.stock = before
            return str(refused), self.seq, {}
        levels = {at: self.stock.get(at, 0) for at in named}
        if key is not None:
            self.keys[key] = payload, self.seq, levels
        return "", self.seq, levels

    def _payload(self, op: Any) -> Any:
        name, *arguments = op
        if name in ("receive", "ship", "adjust"):
            return name, sorted(self._sums(arguments[0]).items())
        if name == "transfer":
            return name, sorted(self._sums(arguments[0]).items()), *arguments[1:]
        return op

    def _sums(self, lines: Any) -> dict[tuple[str, str], int]:
        sums: dict[tuple[str, str], int] = {}
        for sku, quantity, place in lines:
            sums[sku, place] = sums.get((sku, place), 0) + quantity
        return sums

    def _check(self, *levels: tuple[str, str]) -> None:
        for sku, place in levels:
            if sku not in self.items:
                raise Refused("unknown_item")
            if place not in self.places:
                raise Refused("unknown_location")

    def _move(self, deltas: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
        if any(self.stock.get(at, 0) + delta < 0 for at, delta in deltas.items()):
            raise Refused("insufficient_stock")
        for at, delta in deltas.items():
            self.stock[at] = self.stock.get(at, 0) + delta
        return list(deltas)

    def put_item(self, sku: str, discontinued: bool | None) -> list[Any]:
        self.items[sku] = self.items.get(sku, False) if discontinued is None else discontinued
        return []

    def delete_item(self, sku: str) -> list[Any]:
        if sku not in self.items:
            raise Refused("unknown_item")
        if any(count for (other, _), count in self.stock.items() if other == sku):
            raise Refused("item_not_empty")
        del self.items[sku]
        return []

    def put_location(self, name: str, sellable: bool) -> list[Any]:
        self.places[name] = sellable
        return []

    def delete_location(self, name: str) -> list[Any]:
        if name == "main":
            raise Refused("invalid_location")
        if name not in self.places:
            raise Refused("unknown_location")
        if any(count for (_, place), count in self.stock.items() if place == name):
            raise Refused("item_not_empty")
        del self.places[name]
        return []

    def receive(self, lines: Any) -> list[Any]:
        sums = self._sums(lines)
        self._check(*sums)
        if any(self.items[sku] for sku, _ in sums):
            raise Refused("item_discontinued")
        return self._move(sums)

    def ship(self, lines: Any) -> list[Any]:
        sums = self._sums(lines)
        self._check(*sums)
        if not all(self.places[place] for _, place in sums):
            raise Refused("invalid_location")
        return self._move({at: -quantity for at, quantity in sums.items()})

    def adjust(self, lines: Any) -> list[Any]:
        sums = self._sums(lines)
        self._check(*sums)
        return self._move(sums)

    def set_on_hand(self, sku: str, quantity: int, place: str, expected: int | None) -> list[Any]:
        self._check((sku, place))
        current = self.stock.get((sku, place), 0)
        if expected is not None and expected != current:
            raise Refused("stale_version")
        return self._move({(sku, place): quantity - current})

    def transfer(self, lines: Any, source: str, destination: str) -> list[Any]:
        sums = self._sums((sku, quantity, source) for sku, quantity, _ in lines)
        self._check(*sums)
        self._check(*((sku, destination) for sku, _ in sums))
        deltas = {}
        for (sku, _), quantity in sums.items():
            deltas[sku, source] = -quantity
            deltas[sku, destination] = quantity
        return self._move(deltas)


def call_of(op: Any) -> calls.Call[Any]:
    name, *arguments = op
    match name:
        case "put_item":
            return calls.put_item(arguments[0], discontinued=arguments[1])
        case "put_location":
            return calls.put_location(arguments[0], sellable=arguments[1])
        case "delete_item" | "delete_location":
            return getattr(calls, name)(arguments[0])  # type: ignore[no-any-return]
        case "set_on_hand":
            sku, quantity, place, expected = arguments
            return calls.set_on_hand(
                sku, quantity, location=place, if_on_hand=expected, force=expected is None
            )
        case "transfer":
            rows, source, destination = arguments
            return calls.transfer([Line(sku, count) for sku, count, _ in rows], source, destination)
    given_lines = [Line(sku, count, place) for sku, count, place in arguments[0]]
    return getattr(calls, name)(given_lines)  # type: ignore[no-any-return]


SKU, PLACE = st.sampled_from(SKUS), st.sampled_from(PLACES)
COUNT, DELTA = st.integers(1, 4), st.sampled_from([-3, -2, -1, 1, 2, 3])


def lines(count: st.SearchStrategy[int], place: Any = PLACE) -> st.SearchStrategy[Any]:
    return st.lists(st.tuples(SKU, count, place), min_size=1, max_size=4).map(tuple)


STOCK = st.one_of(
    st.tuples(st.just("receive"), lines(COUNT)),
    st.tuples(st.just("receive"), lines(COUNT, st.just("main"))),
    st.tuples(st.just("ship"), lines(COUNT, st.just("main"))),
    st.tuples(st.just("ship"), lines(COUNT)),
    st.tuples(st.just("adjust"), lines(DELTA)),
    st.tuples(st.just("set_on_hand"), SKU, st.integers(0, 4), PLACE, st.none() | st.integers(0, 4)),
    st.tuples(st.just("transfer"), lines(COUNT), PLACE, PLACE).filter(lambda op: op[2] != op[3]),
)
CATALOGUE = st.one_of(
    st.tuples(st.just("put_item"), SKU, st.sampled_from([None, None, False, True])),
    st.tuples(st.just("delete_item"), SKU),
    st.tuples(st.just("put_location"), PLACE, st.booleans()),
    st.tuples(st.just("delete_location"), PLACE),
)
OP = st.one_of(STOCK, STOCK, STOCK, CATALOGUE)
COMMAND = st.tuples(
    st.one_of(OP.map(lambda op: [op]), st.lists(OP, min_size=2, max_size=4)),
    st.sampled_from([None, None, None, "k1", "k2"]),
    st.sampled_from(["", "", "flush", "again", "digest"]),
)
START: list[Any] = [
    *[(("put_item", sku, None),) for sku in SKUS],
    (("put_location", "back", True),),
    (("put_location", "hidden", False),),
    (("receive", (("A", 4, "main"), ("B", 4, "main"), ("A", 2, "hidden"))),),
]


@settings(max_examples=150)
@given(st.lists(COMMAND, max_size=25), st.sampled_from([200_000, 1]))
def test_the_store_does_what_the_blackboard_says(commands: list[Any], cached: int) -> None:
    plain, log = Plain(), Log(limits=Limits(levels_cached=cached))
    session = log.open()
    todo = [(list(ops), None, "") for ops in START] + commands
    for number, (ops, key, then) in enumerate(todo, 1):
        call = calls.execute([call_of(op) for op in ops], idempotency_key=key)
        applied = log.send(session, number, call, lowest=number)
        answer = outcome(applied)
        code, seq, levels = plain.apply(ops, key)
        assert (getattr(answer, "code", ""), answer.seq) == (code, seq)  # type: ignore[union-attr]
        if isinstance(answer, Accepted):
            found = {(row.sku, row.location): row.on_hand for row in answer.levels}
            assert (found, list(found)) == (levels, list(levels))
            assert {row.version for row in answer.levels} <= {seq}
        if then == "flush":
            log.machine.flush()
        elif then == "digest":
            log.machine.state_digest()
        elif then == "again":
            assert log.send(session, number, call).result == applied.result
    stock = {at: count for at, count in plain.stock.items() if count}
    page = calls.list_levels(limit=1_000)
    listed = page.value(log.machine.query(page.encode()))
    assert {(row.sku, row.location): row.on_hand for row in listed if row.on_hand} == stock
    assert log.machine.problems() == []
    replayed = StateMachine()
    log.replay(replayed)
    assert replayed.state_digest() == log.machine.state_digest()
