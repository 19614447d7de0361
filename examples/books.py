"""The books of a run, kept in plain Python: what was asked, what was answered, what must be.

The rule is simple, and knows nothing of distinv: replay all answers in the order of their seq on
a dictionary. Every sale that was accepted must have been possible there, every one refused
impossible, and every figure in an answer equal to the dictionary's. At the end the servers must
have the dictionary's digest, and the ledger each accepted order once, under the seq that its
till was told, with exactly its lines.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import anyio
from attrs import define, field, frozen
from retail_data import Movement
from till import Settled, settle

from distinv import InventoryClient
from distinv.errors import DistinvError, InsufficientStock
from distinv.model import Receipt
from distinv.testing.processes import ServerStatus

OPENING = "opening"
"""The reference of the opening stock."""
PAGE_ROWS = 1_000


@frozen
class Answer:
    """How one order ended, as its till heard it."""

    seq: int
    reference: str
    settled: Settled


def effect(movement: Movement) -> dict[str, int]:
    """What it does to the stock, by sku."""
    sign = -1 if movement.kind == "purchase" else 1
    return {sku: sign * quantity for sku, quantity in movement.lines.items()}


def digest_of(stock: Mapping[str, int]) -> str:
    """The inventory digest, as its definition says."""
    rows = sorted([sku, on_hand] for sku, on_hand in stock.items() if on_hand)
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


@define(eq=False)
class Stopwatch:
    """Measures the longest time in which calls waited and none was answered."""

    gap_s: float = 0.0
    waiting: int = 0
    _since: float = 0.0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one call."""
        if self.waiting == 0:
            self._since = anyio.current_time()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            now = anyio.current_time()
            self.gap_s = max(self.gap_s, now - self._since)
            self._since = now


@define(eq=False)
class Books:
    """Everything that was asked of the cluster, and what it answered."""

    opening: Mapping[str, int]
    movements: Mapping[str, Movement]
    """By reference."""
    answers: list[Answer] = field(factory=list)
    problems: list[str] = field(factory=list)
    watch: Stopwatch = field(factory=Stopwatch)
    _last_seq: dict[int, int] = field(factory=dict)
    """Of each terminal."""

    async def order(
        self,
        inventory: InventoryClient,
        terminal: int,
        movement: Movement,
        *,
        key: str | None = None,
        patience_s: float = 60.0,
    ) -> None:
        """A terminal places one order, and writes down how it ended. It has one at a time."""
        command = partial(
            getattr(inventory, movement.kind),
            movement.lines,
            idempotency_key=key,
            **movement.options,
        )
        try:
            with self.watch.call():
                settled = await settle(inventory, command, patience_s)
        except DistinvError as error:
            self.problems.append(f"order {movement.reference} ended in {error.code}: {error}")
            return
        seq = settled.outcome.seq or 0
        if seq <= self._last_seq.get(terminal, 0):
            self.problems.append(f"order {movement.reference}: seq {seq} is not above the last")
        self._last_seq[terminal] = seq
        self.answers.append(Answer(seq, movement.reference, settled))

    def accepted(self) -> Counter[str]:
        """How many orders of each kind took effect."""
        return Counter(
            self.movements[answer.reference].kind
            for answer in self.answers
            if answer.settled.accepted
        )

    @property
    def refused(self) -> int:
        return sum(not answer.settled.accepted for answer in self.answers)

    @property
    def unknown_resolved(self) -> int:
        return sum(answer.settled.unknown for answer in self.answers)

    # --- the judgement --------------------------------------------------------------------------

    def replay(self) -> dict[str, int]:
        """The stock in the end. What cannot have happened is noted as a problem."""
        stock = dict(self.opening)
        times = Counter(answer.reference for answer in self.answers)
        self._note(
            (f"order {reference} was answered {times[reference]} times")
            for reference in self.movements
            if times[reference] != 1
        )
        seqs = Counter(answer.seq for answer in self.answers)
        self._note(f"seq {seq} was given {n} times" for seq, n in seqs.items() if n > 1)
        for answer in sorted(self.answers, key=lambda answer: answer.seq):
            movement = self.movements[answer.reference]
            after = {sku: stock.get(sku, 0) + n for sku, n in effect(movement).items()}
            short = {sku: stock.get(sku, 0) for sku, left in after.items() if left < 0}
            if answer.settled.accepted == bool(short):
                word = "sold" if answer.settled.accepted else "refused"
                self.problems.append(f"order {answer.reference} was wrongly {word}")
            if not short:
                stock.update(after)
            told = _told(answer.settled)
            if told and told != (short or after):
                self.problems.append(f"order {answer.reference} was told wrong figures: {told}")
        return stock

    def compare(self, statuses: Iterable[ServerStatus], digest: str) -> None:
        """All servers must be in one state, and have this digest."""
        statuses = tuple(statuses)
        for status in statuses:
            if status.digest != digest:
                self.problems.append(f"{status.name} has the digest {status.digest}, not {digest}")
        if len({(status.seq, status.state_digest) for status in statuses}) != 1:
            self.problems.append("the servers are not in the same state")

    async def audit(self, inventory: InventoryClient) -> int:
        """Read the whole ledger; returns how many references it has, the opening apart."""
        found: dict[str, dict[int, Counter[str]]] = {}
        after = None
        while True:
            page = await inventory.ledger(after=after, limit=PAGE_ROWS)
            for line in page:
                seqs = found.setdefault(line.reference or "", {})
                seqs.setdefault(line.seq, Counter())[line.sku] += line.delta
            after = page.next
            if after is None:
                break
        found.pop(OPENING, None)
        expected = {
            answer.reference: {answer.seq: Counter(effect(self.movements[answer.reference]))}
            for answer in self.answers
            if answer.settled.accepted
        }
        self._note(
            f"the ledger has order {reference} at {sorted(found.get(reference, ()))}, "
            f"and not once with its lines at {sorted(expected.get(reference, ()))}"
            for reference in sorted(found.keys() | expected.keys())
            if found.get(reference) != expected.get(reference)
        )
        return len(found)

    def _note(self, problems: Iterable[str]) -> None:
        self.problems.extend(problems)


def _told(settled: Settled) -> dict[str, int]:
    """The figures in an answer: the levels after it, or what there was of each sku short."""
    match settled.outcome:
        case Receipt(levels=levels):
            return {level.sku: level.on_hand for level in levels}
        case InsufficientStock(shortages=shortages):
            return {short.sku: short.available for short in shortages}
        case _:
            return {}
