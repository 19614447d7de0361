"""The clients of a campaign: tills that sell, and customers that crash and come again.

What they ask for is drawn from the seed; what they are told is the servers' affair. Every command
bears a reference of its own, so that the ledger tells what became of it in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import anyio
from attrs import define, field, frozen

from distinv.client.client import InventoryClient
from distinv.testing.torture.history import Arguments, Call
from distinv.testing.torture.recorder import Recorder, Teller

SKUS = tuple(f"sku-{number}" for number in range(1, 13))
SCARCE = SKUS[:4]
"""There is less of these than is asked for: many commands are refused."""
LOCATIONS = ("main", "van", "attic")
_TIMEOUT_S = 8.0
_AUDIT_S = 30.0
"""Everything has healed: an answer that takes longer is a fault."""


@frozen
class Habits:
    """How the clients behave."""

    clients: int
    """Tills: client objects that live as long as the campaign."""
    callers: int
    """Concurrent callers of each."""
    think_us: int
    """How long a caller waits before its next call, at most."""


@define
class Shop:
    """All clients of a campaign."""

    recorder: Recorder
    make_client: Callable[[str], InventoryClient]
    seed: int
    habits: Habits
    _closing: bool = False
    _asked: dict[str, None] = field(factory=dict)
    """Keys of commands whose outcome has been found out, or will not be."""
    _references: int = 0

    # --- the day --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Make the catalogue and receive the opening stock."""
        async with self._client("stockroom") as teller:
            for sku in SKUS:
                await self._must(teller, "put_item", {"sku": sku})
            for name in LOCATIONS[1:]:
                await self._must(teller, "put_location", {"name": name})
            for location in LOCATIONS:
                lines = {sku: 20 if sku in SCARCE else 2_000 for sku in SKUS}
                await self._must(
                    teller,
                    "receive",
                    {"lines": lines, "location": location, "reference": f"opening {location}"},
                )

    async def run(self) -> None:
        """Sell until `close`."""
        async with AsyncExitStack() as stack:
            tills = [
                await stack.enter_async_context(self._client(f"till-{number}"))
                for number in range(1, self.habits.clients + 1)
            ]
            async with anyio.create_task_group() as group:
                for teller in tills:
                    for number in range(self.habits.callers):
                        group.start_soon(_Caller(self, tills, teller, number).run)
                group.start_soon(self._customers)

    def close(self) -> None:
        """Every caller makes no further call."""
        self._closing = True

    @property
    def closing(self) -> bool:
        return self._closing

    def next_reference(self) -> str:
        self._references += 1
        return f"R{self._references}"

    def settled(self, key: str) -> None:
        """Nobody need ask any more what became of the command with this key."""
        self._asked[key] = None

    def _client(self, name: str) -> _Till:
        return _Till(name, self.make_client(name))

    async def _must(self, teller: Teller, operation: str, arguments: Arguments) -> None:
        call = await self.recorder.command(teller, operation, arguments, timeout=_AUDIT_S)
        if call.outcome != "accepted":
            raise ShopFailed(f"nothing goes on, though nothing is wrong: {call.describe()}")

    # --- customers that crash -------------------------------------------------------------------

    async def _customers(self) -> None:
        """A client after another that dies in the middle of a command with a key."""
        random = Random(f"{self.seed} customers")
        number = 0
        while not self.closing:
            number += 1
            await anyio.sleep(random.uniform(0.2, 1.5))
            reference = self.next_reference()
            lines = _some_lines(random)
            arguments = {"lines": lines, "reference": reference, "key": f"order {reference}"}
            operation = random.choice(("ship", "ship", "receive"))
            name = f"customer-{number}"
            async with self._client(name) as teller:
                await self.recorder.command(
                    *(teller, operation, arguments),
                    timeout=_TIMEOUT_S,
                    patience=random.uniform(0.0, 0.08),
                )
            await self._come_again(name, operation, arguments)

    async def _come_again(self, name: str, operation: str, arguments: Arguments) -> None:
        """The same customer, as a new process would: the same key, until it is answered."""
        for life in range(2, 6):
            async with self._client(f"{name}.{life}") as teller:
                call = await self.recorder.command(teller, operation, arguments, timeout=4.0)
            if call.outcome in ("accepted", "refused"):
                self.settled(call.key)
                return

    # --- the books at the end -------------------------------------------------------------------

    async def audit(self) -> None:
        """Find out all that is still unknown, and read everything. Raises ShopFailed."""
        async with self._client("auditor") as teller:
            arguments = {"lines": {SKUS[0]: 1}, "reference": "after all"}
            await self._must(teller, "receive", arguments)
            for key in self._unknown_keys():
                await self.recorder.resolve(teller, key, timeout=_AUDIT_S)
            keys = [[sku, location] for sku in SKUS for location in LOCATIONS]
            await self.recorder.levels(teller, {"keys": keys}, timeout=_AUDIT_S)
            after: Any = None
            while True:
                call = await self.recorder.ledger(teller, after, timeout=_AUDIT_S)
                if call.outcome != "value":
                    raise ShopFailed(f"the ledger cannot be read: {call.describe()}")
                after = call.answer["next"]
                if after is None:
                    return

    def _unknown_keys(self) -> list[str]:
        keys = {
            call.key or str(call.answer.get("key") or ""): None
            for call in self.recorder.calls
            if call.is_command and call.outcome in ("unknown", "abandoned")
        }
        return [key for key in keys if key and key not in self._asked]


class ShopFailed(Exception):
    """The service is not there, though nothing is broken any more."""


class _Till:
    """A client while it is open, under its name."""

    def __init__(self, name: str, client: InventoryClient) -> None:
        self._teller = Teller(name, client)

    async def __aenter__(self) -> Teller:
        await self._teller.client.__aenter__()
        return self._teller

    async def __aexit__(self, *what: Any) -> None:
        await self._teller.client.__aexit__(*what)


class _Caller:
    """One caller of a till, with one call at a time."""

    def __init__(self, shop: Shop, tills: list[Teller], teller: Teller, number: int) -> None:
        self._shop = shop
        self._tills = tills
        self._teller = teller
        self._random = Random(f"{shop.seed} {teller.name} {number}")
        self._seen: dict[tuple[str, str], int] = {}
        """What it last saw on hand, for a compare."""
        self._seq = 0
        """The highest seq it was told of."""

    async def run(self) -> None:
        think_us = self._shop.habits.think_us
        while not self._shop.closing:
            await anyio.sleep(self._random.randrange(think_us + 1) / 1_000_000)
            if self._random.random() < 0.2:
                await self._read()
            else:
                await self._command()

    async def _read(self) -> None:
        random = self._random
        keys = [[sku, random.choice(LOCATIONS)] for sku in random.sample(SKUS, 3)]
        arguments: Arguments = {"keys": keys[: random.randint(1, 3)]}
        if random.random() < 0.4:
            arguments["read"] = "local"
            if random.random() < 0.5:
                arguments["min_seq"] = self._seq
        call = await self._shop.recorder.levels(self._teller, arguments, timeout=_TIMEOUT_S)
        self._learn(call)

    async def _command(self) -> None:
        random, recorder = self._random, self._shop.recorder
        operation, arguments = self._draw()
        arguments["reference"] = self._shop.next_reference()
        timeout = random.uniform(0.05, 1.0) if random.random() < 0.1 else _TIMEOUT_S
        patience = random.uniform(0.0, 0.05) if random.random() < 0.01 else None
        call = await recorder.command(
            self._teller, operation, arguments, timeout=timeout, patience=patience
        )
        self._learn(call)
        if call.outcome == "unknown":
            await self._find_out(str(call.answer["key"]))

    async def _find_out(self, key: str) -> None:
        """Ask the same client, or another one, or leave it for the audit."""
        chance = self._random.random()
        if chance < 0.15:
            return
        teller = self._teller if chance < 0.75 else self._random.choice(self._tills)
        call = await self._shop.recorder.resolve(teller, key, timeout=_TIMEOUT_S)
        if call.outcome in ("accepted", "refused", "none"):
            self._shop.settled(key)

    def _learn(self, call: Call) -> None:
        self._seq = max(self._seq, call.seq or 0)
        for sku, location, on_hand, _ in call.answer.get("levels", ()):
            self._seen[sku, location] = on_hand

    # --- what to ask for ------------------------------------------------------------------------

    def _draw(self) -> tuple[str, Arguments]:
        random = self._random
        chance = random.random()
        if chance < 0.5:
            return self._part("ship")
        if chance < 0.68:
            return self._part("receive")
        if chance < 0.80:
            return self._part("transfer")
        if chance < 0.88:
            return self._part("adjust")
        if chance < 0.94:
            return self._set_on_hand()
        if chance < 0.95:
            return "ship", {"lines": {"nothing of ours": 1}}
        kinds = random.sample(("ship", "receive", "transfer", "adjust"), 2)
        parts = [self._part(kind) for kind in kinds]
        return "execute", {
            "operations": [{"operation": name, "arguments": given} for name, given in parts]
        }

    def _part(self, operation: str) -> tuple[str, Arguments]:
        random = self._random
        lines = _some_lines(random)
        if operation == "transfer":
            source, destination = random.sample(LOCATIONS, 2)
            return operation, {"lines": lines, "source": source, "destination": destination}
        if operation == "adjust":
            lines = {sku: random.choice((-1, 1)) * amount for sku, amount in lines.items()}
        return operation, {"lines": lines, "location": random.choice(LOCATIONS)}

    def _set_on_hand(self) -> tuple[str, Arguments]:
        random = self._random
        sku, location = random.choice(SCARCE), random.choice(LOCATIONS)
        seen = self._seen.get((sku, location), 20)
        return "set_on_hand", {
            "sku": sku,
            "quantity": random.randint(5, 30),
            "location": location,
            "if_on_hand": seen,
        }


def _some_lines(random: Random) -> dict[str, int]:
    """One to three lines of one to nine pieces."""
    return {sku: random.randint(1, 9) for sku in random.sample(SKUS, random.randint(1, 3))}
