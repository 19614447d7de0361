"""From Python arguments to commands and questions, and from answers to values and errors.

The single place where this happens: every face of the inventory (the asynchronous client, the
blocking one, the embedded store) takes the same keyword arguments, raises the same errors and
returns the same values because it goes through here. Nothing here does I/O.

A *call* is a command ready to be sent: `call.encode()` makes the bytes, `call.value(outcome,
key)` makes the method's value of what came back, or raises the refusal. An *ask* is the same
for a question: `ask.encode()` and `ask.value(answer)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from attrs import frozen

from distinv.errors import InvalidRequest, TooManyLines
from distinv.inventory import commands, queries
from distinv.inventory.arguments import (
    about_of,
    attributes_of,
    filled,
    ledger_cursor,
    level_cursor,
    pair_of,
    rows_of,
    text,
    time_us_of,
    whole,
)
from distinv.inventory.commands import Accepted, Command, LineRow, Operation
from distinv.inventory.rules import LIMITS, is_text
from distinv.inventory.values import (
    Resolution,
    accepted_or_raise,
    class_of,
    item_of,
    last_item,
    last_location,
    ledger_entry_of,
    level_of,
    location_of,
    receipt_of,
    resolution_of,
)
from distinv.model import (
    MAIN,
    AttributeValue,
    Cursor,
    Digest,
    Item,
    LedgerEntry,
    Level,
    Lines,
    Location,
    Page,
    Receipt,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@frozen
class Call(Generic[T_co]):
    """A checked command, and how its outcome becomes a value of type T."""

    operations: tuple[Operation, ...]
    idempotency_key: str | None
    read: Callable[[Accepted, str | None], T_co]

    def encode(self) -> bytes:
        """The command's bytes. Raises TooManyLines when they do not fit one log entry."""
        data = commands.encode_command(Command(self.operations, self.idempotency_key or ""))
        if len(data) > LIMITS.batch_bytes:
            raise TooManyLines(f"A command has at most {LIMITS.batch_bytes} bytes.")
        return data

    def value(self, outcome: bytes, key: str | None = None) -> T_co:
        """The method's value. `key` is what the receipt names when the caller gave no key.

        Raises the refusal, with its seq; OutcomeUnknown when it was applied but its answer is
        no longer kept whole.
        """
        accepted = accepted_or_raise(commands.decode_outcome(outcome))
        return self.read(accepted, self.idempotency_key or key)


@frozen
class Ask(Generic[T_co]):
    """A checked question, and how its answer becomes a value of type T."""

    query: queries.Query
    read: Callable[[Any], T_co]

    def encode(self) -> bytes:
        return queries.encode_query(self.query)

    def value(self, answer: bytes) -> T_co:
        """The method's value. Raises NotFound and InvalidRequest, without a seq."""
        decoded = queries.decode_answer(answer)
        if isinstance(decoded, queries.Failure):
            raise class_of(decoded.code)(decoded.message)
        try:
            return self.read(decoded)
        except (AttributeError, IndexError, TypeError, ValueError, OverflowError):
            raise InvalidRequest("The answer does not fit the question.") from None


# --- catalogue --------------------------------------------------------------------------------


def put_item(
    sku: str,
    *,
    name: str | None = None,
    unit: str | None = None,
    scale: int | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
    discontinued: bool | None = None,
    if_version: int | None = None,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Item]:
    operation = commands.PutItem(
        text(sku),
        text(name),
        text(unit),
        whole(scale),
        attributes_of(attributes),
        discontinued,
        whole(if_version),
        about_of(reason, reference, note, occurred_at),
    )
    if discontinued is not None and not isinstance(discontinued, bool):
        raise InvalidRequest("discontinued is a bool.")
    return _call(operation, idempotency_key, last_item)


def delete_item(
    sku: str,
    *,
    if_version: int | None = None,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.DeleteItem(text(sku), whole(if_version), about)
    return _call(operation, idempotency_key, receipt_of)


def put_location(
    name: str,
    *,
    sellable: bool = True,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Location]:
    if not isinstance(sellable, bool):
        raise InvalidRequest("sellable is a bool.")
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.PutLocation(text(name), sellable, about)
    return _call(operation, idempotency_key, last_location)


def delete_location(
    name: str,
    *,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.DeleteLocation(text(name), about)
    return _call(operation, idempotency_key, receipt_of)


# --- stock ------------------------------------------------------------------------------------


def receive(
    lines: Lines,
    *,
    location: str = MAIN,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.Receive(rows_of(lines), text(location), about)
    return _call(operation, idempotency_key, receipt_of)


def ship(
    lines: Lines,
    *,
    location: str = MAIN,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.Ship(rows_of(lines), text(location), about)
    return _call(operation, idempotency_key, receipt_of)


def purchase(
    lines: Lines,
    *,
    location: str = MAIN,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    """A `ship` whose reason is `sold`."""
    about = about_of("sold" if reason is None else reason, reference, note, occurred_at)
    operation = commands.Ship(rows_of(lines), text(location), about)
    return _call(operation, idempotency_key, receipt_of)


def adjust(
    lines: Lines | str,
    delta: int | None = None,
    *,
    location: str = MAIN,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    """`adjust(sku, delta)`, or `adjust(lines)` with signed quantities."""
    if isinstance(lines, str):
        if delta is None:
            raise InvalidRequest("adjust(sku, delta) needs the delta.")
        rows: tuple[LineRow, ...] = (LineRow(text(lines), whole(delta)),)
    elif delta is not None:
        raise InvalidRequest("Give adjust either a sku and a delta, or lines.")
    else:
        rows = rows_of(lines)
    about = about_of(reason, reference, note, occurred_at)
    return _call(commands.Adjust(rows, text(location), about), idempotency_key, receipt_of)


def set_on_hand(
    sku: str,
    quantity: int,
    *,
    location: str = MAIN,
    if_version: int | None = None,
    if_on_hand: int | None = None,
    force: bool = False,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    """Exactly one of `if_version`, `if_on_hand` and `force=True` is needed."""
    if not isinstance(force, bool):
        raise InvalidRequest("force is a bool.")
    operation = commands.SetOnHand(
        text(sku),
        whole(quantity),
        text(location),
        whole(if_version),
        whole(if_on_hand),
        force,
        about_of(reason, reference, note, occurred_at),
    )
    return _call(operation, idempotency_key, receipt_of)


def transfer(
    lines: Lines,
    source: str,
    destination: str,
    *,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    about = about_of(reason, reference, note, occurred_at)
    operation = commands.Transfer(rows_of(lines), text(source), text(destination), about)
    return _call(operation, idempotency_key, receipt_of)


def execute(
    ops: Iterable[Call[Any]],
    *,
    reason: str | None = None,
    reference: str | None = None,
    note: str | None = None,
    occurred_at: datetime | None = None,
    idempotency_key: str | None = None,
) -> Call[Receipt]:
    """Any calls of this module as one command: all of them, or the first one's refusal.

    What is said here about reason, reference, note and occurred_at holds for the ops that do
    not say it themselves.
    """
    common = about_of(reason, reference, note, occurred_at)
    operations: list[Operation] = []
    for call in ops:
        if not isinstance(call, Call):
            raise InvalidRequest(f"execute takes calls such as receive(...), not {call!r:.60}.")
        if call.idempotency_key is not None:
            raise InvalidRequest("The idempotency key belongs to execute, not to one of its ops.")
        operations.extend(
            msgspec.structs.replace(operation, about=filled(operation.about, common))
            for operation in call.operations
        )
    return _checked(Call(tuple(operations), idempotency_key, receipt_of))


# --- questions --------------------------------------------------------------------------------


def level(sku: str, location: str = MAIN) -> Ask[Level]:
    query = queries.AskLevels(((text(sku), text(location)),))
    return _ask(query, lambda answer: level_of(answer.levels[0], answer.seq))


def levels(keys: Iterable[str | tuple[str, str]]) -> Ask[tuple[Level, ...]]:
    """`keys` are skus (at `main`) or (sku, location)."""
    pairs = tuple((key, MAIN) if isinstance(key, str) else pair_of(key) for key in keys)
    return _ask(
        queries.AskLevels(pairs),
        lambda answer: tuple(level_of(row, answer.seq) for row in answer.levels),
    )


def available(sku: str, *, locations: Sequence[str] | None = None) -> Ask[int]:
    names = None if locations is None else tuple(text(name) for name in locations)
    return _ask(queries.AskAvailable(text(sku), names), lambda answer: int(answer.value))


def get_item(sku: str) -> Ask[Item]:
    return _ask(queries.AskItem(text(sku)), lambda answer: item_of(answer.items[0], answer.seq))


def list_items(prefix: str = "", after: Cursor | None = None, limit: int = 100) -> Ask[Page[Item]]:
    if after is not None and not isinstance(after, str):
        raise InvalidRequest("after is a sku, or the next of a page of items.")
    return _ask(
        queries.AskItems(text(prefix), text(after), whole(limit)),
        lambda answer: Page(
            tuple(item_of(row, answer.seq) for row in answer.items), answer.next, answer.seq
        ),
    )


def list_locations() -> Ask[tuple[Location, ...]]:
    return _ask(
        queries.AskLocations(),
        lambda answer: tuple(location_of(row) for row in answer.locations),
    )


def list_levels(
    prefix: str = "",
    location: str | None = None,
    below: int | None = None,
    after: Cursor | None = None,
    limit: int = 100,
) -> Ask[Page[Level]]:
    """`below`: only levels of which less than this is available."""
    query = queries.AskLevelList(
        text(prefix),
        text(location),
        whole(below),
        None if after is None else level_cursor(after),
        whole(limit),
    )
    return _ask(
        query,
        lambda answer: Page(
            tuple(level_of(row, answer.seq) for row in answer.levels), answer.next, answer.seq
        ),
    )


def ledger(
    *,
    sku: str | None = None,
    location: str | None = None,
    reference: str | None = None,
    since: int | datetime | None = None,
    after: Cursor | int | None = None,
    limit: int = 100,
    newest_first: bool = False,
) -> Ask[Page[LedgerEntry]]:
    """`since` is a seq or a time, both included; `after` is a page's `next`, or a seq."""
    at = isinstance(since, datetime)
    query = queries.AskLedger(
        text(sku),
        text(location),
        text(reference),
        None if at else whole(since),
        time_us_of(since) if isinstance(since, datetime) else None,
        None if after is None else ledger_cursor(after, newest_first),
        whole(limit),
        bool(newest_first),
    )
    return _ask(
        query,
        lambda answer: Page(
            tuple(ledger_entry_of(row) for row in answer.entries), answer.next, answer.seq
        ),
    )


def digest() -> Ask[Digest]:
    return _ask(queries.AskDigest(), lambda answer: Digest(answer.seq, answer.value))


def resolve(key: str) -> Ask[Resolution]:
    """Ask what became of a command. See `Resolution.session` for the one case with a sequel."""
    plain = text(key)
    return _ask(queries.AskResolve(plain), lambda answer: resolution_of(plain, answer))


# --- what every builder ends with ------------------------------------------------------------


def _call(
    operation: Operation, key: str | None, read: Callable[[Accepted, str | None], T]
) -> Call[T]:
    return _checked(Call((operation,), key, read))


def _checked(call: Call[T]) -> Call[T]:
    key = call.idempotency_key
    if key is not None and not is_text(key, LIMITS.key_chars, 1):
        raise InvalidRequest(f"An idempotency key is text of 1 to {LIMITS.key_chars} characters.")
    commands.check_command(Command(call.operations, key or ""))
    return call


def _ask(query: queries.Query, read: Callable[[Any], T]) -> Ask[T]:
    queries.check_query(query)
    return Ask(query, read)
