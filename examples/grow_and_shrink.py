"""A cluster that grows and shrinks while tills go on selling: 1, 3, 5, 7 servers, and 3 again.

    python examples/grow_and_shrink.py --json

Every server is started with the cluster's name (and key) only: it finds the others, gets the log,
and is given a vote when it has kept up for some seconds. At the end servers leave, one after the
other, the leader among them. All the while each terminal receives and sells one article after the
other. Judged are: no call failed, none took effect twice or was lost, all digests are equal, and
the number of voters was always odd and at most five. The last thing printed with `--json` is one
JSON object. Exit status: 0 all is well, 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import anyio
from attrs import define, field
from books import OPENING, Books, digest_of
from retail_data import Movement
from stage import Report, Say, describe, make_parser, play, seconds, show

from distinv import InventoryClient, Plugins
from distinv.errors import Unavailable
from distinv.testing.processes import ServerProcesses
from distinv.testing.server_process import wait_until

STEPS = (1, 3, 5, 7, 3)
SKUS = tuple(f"ARTICLE-{number}" for number in range(1, 6))
OPENING_UNITS = 1_000_000
PATIENCE_S = 60.0
VOTERS_MAX = 5
LOOK_S = 0.05


@define(eq=False)
class Load:
    """Terminals that sell and receive until they are told to stop."""

    servers: ServerProcesses
    books: Books
    orders: dict[str, Movement]
    stopping: bool = False
    failed: list[str] = field(factory=list)

    async def terminal(self, number: int) -> None:
        async with self.servers.client(f"till-{number}") as inventory:
            count = 0
            while not self.stopping:
                count += 1
                kind = "receive" if count % 5 == 0 else "purchase"
                reference = f"{number}-{count}"
                line = {SKUS[(number + count) % len(SKUS)]: 1 + count % 3}
                order = Movement(kind, reference, line, {"reference": reference})
                self.orders[reference] = order
                await self.books.order(inventory, number, order)


@define(eq=False)
class Census:
    """How many voters there were, whenever somebody looked."""

    counts: list[int] = field(factory=list)

    async def watch(self, inventory: InventoryClient) -> None:
        while True:
            voters = await voters_of(inventory)
            if voters and (not self.counts or self.counts[-1] != voters):
                self.counts.append(voters)
            await anyio.sleep(LOOK_S)


async def voters_of(inventory: InventoryClient) -> int:
    """By the leader's word; 0 when nobody leads just now."""
    try:
        replies = await inventory.status(timeout=1.0)
    except Unavailable:
        return 0
    leaders = [reply for reply in replies if reply.role == "leader"]
    if not leaders:
        return 0
    newest = max(leaders, key=lambda reply: reply.ballot)
    return sum(each.votes for each in newest.servers)


async def grow_and_shrink(options: argparse.Namespace, say: Say) -> Report:
    Plugins().election(options.election)  # before any process is started
    orders: dict[str, Movement] = {}
    books = Books(dict.fromkeys(SKUS, OPENING_UNITS), orders)
    steps: list[dict[str, object]] = []
    census = Census()
    async with (
        ServerProcesses(
            1,
            expect=None,
            cluster="grow-and-shrink",
            directory=options.directory,
            election=options.election,
            backend=options.backend,
            loss=options.loss,
            seed=options.seed,
        ) as servers,
        servers.client("manager", timeout=PATIENCE_S) as manager,
        anyio.create_task_group() as group,
    ):
        for sku in SKUS:
            await manager.put_item(sku)
        await manager.receive(dict.fromkeys(SKUS, OPENING_UNITS), reference=OPENING)
        load = Load(servers, books, orders)
        group.start_soon(census.watch, manager)
        async with anyio.create_task_group() as tills:
            for number in range(1, options.terminals + 1):
                tills.start_soon(load.terminal, number)
            for count in STEPS:
                steps.append(await step(servers, manager, books, count, say))
                await anyio.sleep(options.seconds)
            load.stopping = True
        say("the tills have stopped; looking into the books")
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            statuses = await servers.wait_converged()
            digest = digest_of(books.replay())
            books.compare(statuses, digest)
            await books.audit(manager)
    wrong = [count for count in census.counts if count % 2 == 0 or count > VOTERS_MAX]
    books.problems += [f"there were {count} voters" for count in wrong]
    report = describe(statuses, digest, books.problems) | {
        "steps": steps,
        "voters": census.counts,
        "orders": len(orders),
        "refused": books.refused,
        "unknown": books.unknown_resolved,
        "write_gap_ms_max": round(books.watch.gap_s * 1_000, 1),
        "terminals": options.terminals,
        "election": options.election,
        "backend": options.backend,
    }
    show(report, say)
    return report


async def step(
    servers: ServerProcesses, manager: InventoryClient, books: Books, count: int, say: Say
) -> dict[str, object]:
    """Start servers, or let some leave, until there are `count`, and wait for their votes."""
    began, answered = time.perf_counter(), len(books.answers)
    while len(servers.running) < count:
        await servers.add()
    while len(servers.running) > count:
        leader = await servers.leader()
        await manager.dismiss_server(leader.name)
        await leader.wait_ended()
    voters = min(count, VOTERS_MAX)

    async def voting() -> bool:
        return await voters_of(manager) == voters

    await wait_until(voting, PATIENCE_S, f"there are not {voters} voters")
    took_s = round(time.perf_counter() - began, 3)
    orders = len(books.answers) - answered
    say(f"{count} servers, {voters} voters after {took_s} s and {orders} orders")
    return {"servers": count, "voters": voters, "seconds": took_s, "orders": orders}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser("A cluster that grows and shrinks while tills go on.", terminals=8)
    parser.add_argument(
        "--seconds", type=seconds, default=2.0, help="between two steps, to sell in (2)"
    )
    return play(parser.parse_args(arguments), grow_and_shrink)


if __name__ == "__main__":
    sys.exit(main())
