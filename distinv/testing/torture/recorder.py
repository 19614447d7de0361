"""Records what clients ask and are told, while it happens."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from attrs import define, field, frozen

from distinv.client.client import InventoryClient
from distinv.errors import (
    DistinvError,
    InsufficientStock,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    Rejected,
    StaleVersion,
    Unavailable,
)
from distinv.inventory import calls as builders
from distinv.model import Item, Level, Location, Receipt
from distinv.testing.torture.history import Answer, Arguments, Call

_ABANDONED: Answer = {"outcome": "abandoned"}


@frozen
class Teller:
    """A client, and the name by which the history knows it."""

    name: str
    client: InventoryClient


@define
class Recorder:
    """The history of a campaign, in the order in which the calls began."""

    calls: list[Call] = field(factory=list)
    ordered_at_us: int = 0
    """When a command was last answered by its place in the order."""
    ordered: int = 0
    """How many were."""
    gap_us_max: int = 0
    """The longest time without such an answer, since `start_clock`."""

    def start_clock(self) -> None:
        """Measure gaps from now on."""
        self.ordered_at_us, self.gap_us_max = now_us(), 0

    def stop_clock(self) -> int:
        """The longest gap until now, in microseconds."""
        return max(self.gap_us_max, now_us() - self.ordered_at_us)

    async def command(
        self,
        teller: Teller,
        operation: str,
        arguments: Arguments,
        *,
        timeout: float,
        patience: float | None = None,
    ) -> Call:
        """Make one command and keep how it ended; after `patience` seconds its caller goes away.

        Raises nothing of what a client may raise.
        """

        async def send() -> tuple[Answer, int | None]:
            return _done(await _send(teller.client, operation, arguments, timeout))

        call = await self._record(teller.name, operation, arguments, send, patience)
        if call.seq is not None and call.end is not None:
            self.ordered += 1
            if self.ordered_at_us:
                self.gap_us_max = max(self.gap_us_max, call.end - self.ordered_at_us)
            self.ordered_at_us = call.end
        return call

    async def levels(self, teller: Teller, arguments: Arguments, *, timeout: float) -> Call:
        """Read levels in one cut: `keys`, and `read`, `min_seq`."""

        async def send() -> tuple[Answer, int | None]:
            given = dict(arguments)
            keys = [(sku, location) for sku, location in given.pop("keys")]
            levels = await teller.client.levels(keys, timeout=timeout, **given)
            return {"outcome": "value", "levels": _rows(levels)}, levels[0].as_of

        return await self._record(teller.name, "levels", arguments, send, None)

    async def resolve(self, teller: Teller, key: str, *, timeout: float) -> Call:
        """Ask what became of a command."""

        async def send() -> tuple[Answer, int | None]:
            found = await teller.client.resolve(key, timeout=timeout)
            if found is None:
                return {"outcome": "none"}, None
            if isinstance(found, Receipt):
                answer, seq = _done(found)
                # A result that was kept only in part has no levels any more.
                return (answer if found.levels else answer | {"trimmed": True}), seq
            return _failed(found)

        return await self._record(teller.name, "resolve", {"key": key}, send, None)

    async def ledger(self, teller: Teller, after: Any, *, timeout: float) -> Call:
        """Read the ledger's page after `after`, in the order of seqs."""

        async def send() -> tuple[Answer, int | None]:
            page = await teller.client.ledger(after=after, limit=1_000, timeout=timeout)
            entries = [
                [
                    *(row.seq, row.sku, row.location, row.delta, row.on_hand_after),
                    *(row.kind, row.reference or ""),
                ]
                for row in page
            ]
            return {"outcome": "value", "entries": entries, "next": page.next}, page.as_of

        arguments = {"after": after, "limit": 1_000}
        return await self._record(teller.name, "ledger", arguments, send, None)

    def note(self, client: str, operation: str, answer: Answer) -> None:
        """What was found out otherwise than by a call."""
        now = now_us()
        self.calls.append(Call(client, now, now, operation, {}, answer))

    async def _record(
        self,
        name: str,
        operation: str,
        arguments: Arguments,
        send: Callable[[], Awaitable[tuple[Answer, int | None]]],
        patience: float | None,
    ) -> Call:
        start, at = now_us(), len(self.calls)
        self.calls.append(Call(name, start, None, operation, arguments, _ABANDONED))
        with anyio.move_on_after(patience) as scope:
            try:
                answer, seq = await send()
            except DistinvError as error:
                answer, seq = _failed(error)
        if not scope.cancelled_caught:
            self.calls[at] = Call(name, start, now_us(), operation, arguments, answer, seq)
        return self.calls[at]


def now_us() -> int:
    """Microseconds of the clock of a history."""
    return time.monotonic_ns() // 1_000


def _send(
    client: InventoryClient, operation: str, arguments: Arguments, timeout: float
) -> Awaitable[Receipt | Item | Location]:
    given = dict(arguments)
    given |= {"timeout": timeout, "idempotency_key": given.pop("key", None)}
    if operation == "execute":
        given["ops"] = [
            getattr(builders, part["operation"])(**part["arguments"])
            for part in given.pop("operations")
        ]
    sent: Awaitable[Receipt | Item | Location] = getattr(client, operation)(**given)
    return sent


def _done(value: Receipt | Item | Location) -> tuple[Answer, int | None]:
    if not isinstance(value, Receipt):
        return {"outcome": "accepted", "levels": []}, value.version
    answer: Answer = {"outcome": "accepted", "levels": _rows(value.levels)}
    if value.replayed:
        answer["replayed"] = True
    return answer, value.seq


def _rows(levels: tuple[Level, ...]) -> list[list[Any]]:
    return [[row.sku, row.location, row.on_hand, row.version] for row in levels]


def _failed(error: DistinvError) -> tuple[Answer, int | None]:
    if isinstance(error, OutcomeUnknown):
        return {"outcome": "unknown", "key": error.idempotency_key}, None
    if isinstance(error, Unavailable):
        return {"outcome": "unavailable", "code": error.code}, None
    if not isinstance(error, Rejected | NotFound | InvalidRequest):
        return {"outcome": "error", "code": error.code, "message": str(error)}, None
    answer: Answer = {"outcome": "refused", "code": error.code}
    if isinstance(error, InsufficientStock) and error.shortages:
        answer["shortages"] = [
            [row.sku, row.location, row.requested, row.available] for row in error.shortages
        ]
    if isinstance(error, StaleVersion) and isinstance(error.current, Level):
        answer["current"] = error.current.on_hand
    return answer, error.seq
