"""The inventory on one machine: the client's methods, blocking, on a file of one's own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

from distinv.config import Limits
from distinv.entry import NO_BALLOT, EntryKind, make_entry
from distinv.errors import InvalidRequest
from distinv.inventory import calls
from distinv.inventory.calls import Ask, Call
from distinv.inventory.commands import session_key
from distinv.inventory.machine import Applied, StateMachine
from distinv.inventory.queries import Fate
from distinv.inventory.schema import MEMORY
from distinv.inventory.values import Refusal
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
    Read,
    Receipt,
)
from distinv.wire.batch import CloseSession, LogCommand, OpenCommand, SessionCommand, encode_batch

T = TypeVar("T")


class CommandOptions(TypedDict, total=False):
    """What every command takes besides its own arguments."""

    reason: str | None
    reference: str | None
    note: str | None
    occurred_at: datetime | None
    idempotency_key: str | None


class ReadOptions(TypedDict, total=False):
    """Taken for the client's sake: a store has nothing newer than what it answers."""

    read: Read
    min_seq: int | None
    timeout: float | None


def system_clock_us() -> int:
    return time.time_ns() // 1_000


class InventoryStore:
    """An inventory in one file, without a network: what a command returns is on disk.

    The methods, their arguments, values and errors are the client's; `timeout` is ignored.
    Methods may be called from several threads; they take turns. One process at a time holds the
    file (StorageError otherwise). After a StorageError, open the file again.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = MEMORY,
        *,
        name: str = "",
        clock: Callable[[], int] = system_clock_us,
        limits: Limits | None = None,
    ) -> None:
        """`name` is the ledger's actor; `clock` gives microseconds since 1970.

        Raises StorageError when the file is no store, is of another version, or is in use.
        """
        self.machine = StateMachine(os.fspath(path), limits, durable=True)
        self._name = name
        self._clock = clock
        self._lock = Lock()
        self._session: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self.machine.close()

    @property
    def seq(self) -> int:
        """The place of the last command in the total order."""
        return self.machine.seq

    # --- catalogue ----------------------------------------------------------------------------

    def put_item(
        self,
        sku: str,
        *,
        name: str | None = None,
        unit: str | None = None,
        scale: int | None = None,
        attributes: Mapping[str, AttributeValue] | None = None,
        discontinued: bool | None = None,
        if_version: int | None = None,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Item:
        return self._call(
            calls.put_item(
                sku,
                name=name,
                unit=unit,
                scale=scale,
                attributes=attributes,
                discontinued=discontinued,
                if_version=if_version,
                **options,
            )
        )

    def delete_item(
        self,
        sku: str,
        *,
        if_version: int | None = None,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.delete_item(sku, if_version=if_version, **options))

    def put_location(
        self,
        name: str,
        *,
        sellable: bool = True,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Location:
        return self._call(calls.put_location(name, sellable=sellable, **options))

    def delete_location(
        self, name: str, *, timeout: float | None = None, **options: Unpack[CommandOptions]
    ) -> Receipt:
        return self._call(calls.delete_location(name, **options))

    # --- stock --------------------------------------------------------------------------------

    def receive(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.receive(lines, location=location, **options))

    def ship(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.ship(lines, location=location, **options))

    def purchase(
        self,
        lines: Lines,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.purchase(lines, location=location, **options))

    def adjust(
        self,
        lines: Lines | str,
        delta: int | None = None,
        *,
        location: str = MAIN,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.adjust(lines, delta, location=location, **options))

    def set_on_hand(
        self,
        sku: str,
        quantity: int,
        *,
        location: str = MAIN,
        if_version: int | None = None,
        if_on_hand: int | None = None,
        force: bool = False,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(
            calls.set_on_hand(
                sku,
                quantity,
                location=location,
                if_version=if_version,
                if_on_hand=if_on_hand,
                force=force,
                **options,
            )
        )

    def transfer(
        self,
        lines: Lines,
        source: str,
        destination: str,
        *,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        return self._call(calls.transfer(lines, source, destination, **options))

    def execute(
        self,
        ops: Iterable[Call[Any]],
        *,
        timeout: float | None = None,
        **options: Unpack[CommandOptions],
    ) -> Receipt:
        """Several `distinv.inventory.calls` as one command, all or nothing."""
        return self._call(calls.execute(ops, **options))

    # --- questions ----------------------------------------------------------------------------

    def get_item(self, sku: str, **options: Unpack[ReadOptions]) -> Item:
        return self._ask(calls.get_item(sku), options)

    def list_items(
        self,
        prefix: str = "",
        after: Cursor | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Page[Item]:
        return self._ask(calls.list_items(prefix, after, limit), options)

    def list_locations(self, **options: Unpack[ReadOptions]) -> tuple[Location, ...]:
        return self._ask(calls.list_locations(), options)

    def level(self, sku: str, location: str = MAIN, **options: Unpack[ReadOptions]) -> Level:
        return self._ask(calls.level(sku, location), options)

    def levels(
        self, keys: Iterable[str | tuple[str, str]], **options: Unpack[ReadOptions]
    ) -> tuple[Level, ...]:
        """Skus (at `main`) or (sku, location), in one consistent cut."""
        return self._ask(calls.levels(keys), options)

    def available(
        self,
        sku: str,
        *,
        locations: Sequence[str] | None = None,
        **options: Unpack[ReadOptions],
    ) -> int:
        """What may be sold, over all sellable locations or over those named."""
        return self._ask(calls.available(sku, locations=locations), options)

    def list_levels(
        self,
        prefix: str = "",
        location: str | None = None,
        below: int | None = None,
        after: Cursor | None = None,
        limit: int = 100,
        **options: Unpack[ReadOptions],
    ) -> Page[Level]:
        return self._ask(calls.list_levels(prefix, location, below, after, limit), options)

    def iter_levels(
        self,
        prefix: str = "",
        location: str | None = None,
        below: int | None = None,
        **options: Unpack[ReadOptions],
    ) -> Iterator[Level]:
        """All pages of `list_levels`; each page is a consistent cut, their sequence is not."""
        after: Cursor | None = None
        while True:
            page = self.list_levels(prefix, location, below, after, 1_000, **options)
            yield from page
            after = page.next
            if after is None:
                return

    def ledger(
        self,
        *,
        sku: str | None = None,
        location: str | None = None,
        reference: str | None = None,
        since: int | datetime | None = None,
        after: Cursor | int | None = None,
        limit: int = 100,
        newest_first: bool = False,
        **options: Unpack[ReadOptions],
    ) -> Page[LedgerEntry]:
        ask = calls.ledger(
            sku=sku,
            location=location,
            reference=reference,
            since=since,
            after=after,
            limit=limit,
            newest_first=newest_first,
        )
        return self._ask(ask, options)

    def digest(self, **options: Unpack[ReadOptions]) -> Digest:
        return self._ask(calls.digest(), options)

    def state_digest(self) -> str:
        """What servers compare: see `StateMachine.state_digest`."""
        with self._lock:
            return self.machine.state_digest()

    def resolve(self, key: str, *, timeout: float | None = None) -> Receipt | Refusal | None:
        """What became of the command with this key: see `Resolution.conclude`."""
        ask = calls.resolve(key)
        with self._lock:
            found = ask.value(self.machine.query(ask.encode()))
            if found.fate is Fate.UNDECIDED:
                self._append(CloseSession(found.session))
                self.machine.flush()
                found = ask.value(self.machine.query(ask.encode()))
        return found.conclude()

    # --- how ----------------------------------------------------------------------------------

    def _call(self, call: Call[T]) -> T:
        command = call.encode()
        with self._lock:
            applied = self._apply(command)
            self.machine.flush()
        return call.value(applied.result, session_key(applied.session, applied.number))

    def _ask(self, ask: Ask[T], options: ReadOptions) -> T:
        read = options.get("read", "linearizable")
        if read not in ("linearizable", "local"):
            raise InvalidRequest(f"read is 'linearizable' or 'local', not {read!r}.")
        with self._lock:
            answer = self.machine.query(ask.encode())
        return ask.value(answer)

    def _apply(self, command: bytes) -> Applied:
        """Apply as the next command of this store's session; a new one when that expired."""
        while True:
            if self._session is None:
                nonce = self.machine.position.index + 1
                self._session = self._append(OpenCommand(nonce, self._name)).session
            number = (self.machine.last_number(self._session) or 0) + 1
            applied = self._append(SessionCommand(self._session, number, number, command))
            if applied.kind == "result":
                return applied
            self._session = None

    def _append(self, command: LogCommand) -> Applied:
        machine = self.machine
        time_us = max(machine.time_us, self._clock())
        entry = make_entry(
            machine.position, NO_BALLOT, time_us, EntryKind.COMMANDS, encode_batch([command])
        )
        (applied,) = machine.apply(entry)
        return applied
