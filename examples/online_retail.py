"""A month of a real shop: replay its invoices from concurrent tills, killing leaders meanwhile.

    python examples/online_retail.py FILE --servers 3 --terminals 20 --kill-leader 5 --json

FILE has the form of the "Online Retail" data set, see `retail_data.py`; `--sample N` writes one
with N invoices there first. The example starts servers of its own, receives the opening stock,
and sends every invoice as one command from one of the terminals. Spread over the run it kills
the leader with SIGKILL and starts it again. Then it judges: every invoice was answered once, as
a plain replay in seq order says; every server has the digest of a plain sum over the file; the
ledger has one seq for each reference, with the invoice's lines.

The opening stock `gross` is what each sku loses in all, so that nothing is refused, whatever the
order; a number opens each sku that loses anything with that. `--keys` sends the invoice's number
as the idempotency key; without it the client's session alone sees to it that nothing is done
twice. The last thing printed with `--json` is one JSON object. Exit status: 0 all is well, 1 it
is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import anyio
import retail_data
from attrs import define, field
from books import OPENING, Books, digest_of, effect
from stage import Report, Say, WrongUsage, describe, make_parser, make_servers, play, positive, show
from till import settle

from distinv import InventoryClient, calls
from distinv.config import Limits
from distinv.testing.processes import ServerProcesses

SERVERS_TO_GO_ON = 3
"""With fewer a killed leader has no successor."""


async def replay(options: argparse.Namespace, say: Say) -> Report:
    books, names = read(options)
    say(f"{len(books.movements)} invoices move the stock of {len(names)} skus")
    async with make_servers(options, "online-retail") as servers:
        say(f"{options.servers} servers have found each other")
        async with servers.client("stockroom") as inventory:
            await open_shop(inventory, names, books.opening)
        say(f"the shop is open; replaying from {options.terminals} terminals")
        killer = Killer.spread(servers, say, options.kill_leader, len(books.movements))
        began = time.perf_counter()
        await sell(servers, books, killer, options)
        seconds = time.perf_counter() - began
        say("all invoices are answered; looking into the books")
        await servers.wait_ready()
        statuses = await servers.wait_converged()
        digest = digest_of(books.replay())
        books.compare(statuses, digest)
        if options.opening == "gross":
            check_sum(books, digest)
        async with servers.client("auditor") as inventory:
            references = await books.audit(inventory)
    if killer.kills < options.kill_leader:
        books.problems.append(f"only {killer.kills} leaders were killed")
    accepted = books.accepted()
    report = describe(statuses, digest, books.problems) | {
        "invoices": len(books.movements),
        "sales": accepted["purchase"],
        "returns": accepted["receive"],
        "adjustments": accepted["adjust"],
        "refused": books.refused,
        "references": references,
        "leader_kills": killer.kills,
        "unknown_resolved": books.unknown_resolved,
        "write_gap_ms_max": round(books.watch.gap_s * 1_000, 1),
        "seconds": round(seconds, 3),
        "terminals": options.terminals,
        "election": options.election,
        "backend": options.backend,
        "loss": options.loss,
    }
    show(report, say)
    return report


def read(options: argparse.Namespace) -> tuple[Books, Mapping[str, str]]:
    """The commands of the file, the opening stock, and a name for each sku."""
    try:
        if options.sample:
            if options.file.exists():
                raise WrongUsage(f"{options.file} exists: give a new name for the sample")
            retail_data.generate(options.file, invoice_count=options.sample)
        lines = list(retail_data.read_lines(options.file))
    except (OSError, EOFError) as error:
        raise WrongUsage(f"cannot read {options.file}: {error}") from error
    except (KeyError, ValueError) as error:
        raise WrongUsage(
            f"{options.file} is not of the form of the Online Retail data set: {error!r}"
        ) from error
    movements = retail_data.movements(lines)
    if not movements:
        raise WrongUsage(f"{options.file} has no invoice that moves stock")
    opening = retail_data.opening_stock(movements)
    if options.opening != "gross":
        opening = dict.fromkeys(opening, int(options.opening))
    return Books(opening, {item.reference: item for item in movements}), retail_data.names(lines)


async def open_shop(
    inventory: InventoryClient, names: Mapping[str, str], opening: Mapping[str, int]
) -> None:
    """Enter every sku, and receive the opening stock, in few large commands."""
    most = Limits().lines_per_command
    for skus in batches(names, most // 10):
        items = [calls.put_item(sku, name=names[sku]) for sku in skus]
        await settle(inventory, partial(inventory.execute, items))
    for skus in batches(opening, most):
        lines = {sku: opening[sku] for sku in skus}
        await settle(inventory, partial(inventory.receive, lines, reference=OPENING))


def batches(skus: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(skus)
    while batch := list(islice(rest, size)):
        yield batch


async def sell(
    servers: ServerProcesses, books: Books, killer: Killer, options: argparse.Namespace
) -> None:
    """Every terminal takes the next invoice, until there are none."""
    waiting = enumerate(books.movements.values())

    async def terminal(number: int) -> None:
        async with servers.client(f"till-{number}", timeout=options.timeout) as inventory:
            for place, movement in waiting:
                await killer.comes_to(place)
                key = movement.reference if options.keys else None
                await books.order(inventory, number, movement, key=key)

    async with anyio.create_task_group() as group:
        group.start_soon(killer.run)
        for number in range(1, options.terminals + 1):
            group.start_soon(terminal, number)


@define(eq=False)
class Attempt:
    """One attempt on a leader. The sale waits for the killer, never the other way round."""

    place: int
    """Of the invoice during which it happens."""
    ready: anyio.Event = field(factory=anyio.Event)
    now: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class Killer:
    """Kills the leader with SIGKILL while orders are under way, and starts it again."""

    servers: ServerProcesses
    say: Say
    attempts: list[Attempt]
    kills: int = 0

    @classmethod
    def spread(cls, servers: ServerProcesses, say: Say, count: int, invoices: int) -> Killer:
        """`count` attempts, evenly spread over the invoices."""
        places = (invoices * number // (count + 1) for number in range(1, count + 1))
        return cls(servers, say, [Attempt(place) for place in places])

    async def comes_to(self, place: int) -> None:
        """The sale has come to this invoice: it goes on when the killer is ready for it."""
        for attempt in self.attempts:
            if attempt.place > place:
                return
            await attempt.ready.wait()
            attempt.now.set()

    async def run(self) -> None:
        for attempt in self.attempts:
            leader = await self.servers.leader()
            attempt.ready.set()
            await attempt.now.wait()
            await leader.kill()
            self.kills += 1
            self.say(f"invoice {attempt.place}: {leader.name}, the leader, was killed")
            if len(self.servers.servers) >= SERVERS_TO_GO_ON:
                successor = await self.servers.leader()
                self.say(f"{successor.name} leads; starting {leader.name} again")
            await leader.start()


def check_sum(books: Books, digest: str) -> None:
    """Nothing is refused with this opening stock, so the order does not matter: add up."""
    stock = dict(books.opening)
    for movement in books.movements.values():
        for sku, quantity in effect(movement).items():
            stock[sku] = stock.get(sku, 0) + quantity
    if digest_of(stock) != digest:
        books.problems.append(f"the file adds up to the digest {digest_of(stock)}, not {digest}")


def count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def opening_stock(text: str) -> str:
    return text if text == "gross" else str(positive(text))


def main() -> int:
    parser = make_parser("Replay a shop's invoices from concurrent tills.", terminals=20)
    parser.add_argument("file", metavar="FILE", type=Path, help="the invoices, CSV, also gzipped")
    parser.add_argument(
        "--kill-leader", metavar="K", type=count, default=0, help="how many times (0)"
    )
    parser.add_argument(
        "--opening", metavar="STOCK", type=opening_stock, default="gross", help="gross, or a number"
    )
    parser.add_argument("--keys", action="store_true", help="send each invoice with its key")
    parser.add_argument(
        "--sample", metavar="N", type=positive, help="first write FILE, with N invoices made up"
    )
    return play(parser.parse_args(), replay)


if __name__ == "__main__":
    sys.exit(main())
