"""A flash sale: many tills want the last units of one article at the same moment.

    python examples/flash_sale.py --terminals 200 --units 100 --loss 0.2 --json

Starts servers of its own, lets every terminal try to buy one unit, and judges: exactly the units
there were are sold, every other terminal was told `InsufficientStock`, nobody hangs. With
`--loss` every server and every client drops that part of its datagrams. The last thing printed
with `--json` is one JSON object. Exit status: 0 all is well, 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time

import anyio
from books import OPENING, Books, digest_of
from retail_data import Movement
from stage import Report, Say, describe, make_parser, make_servers, play, positive, show

from distinv.testing.processes import ServerProcesses

HOT = "LAST-ONE"
HANG_S = 120.0
"""No till waits longer than this; one that would is said to hang."""


async def sell_out(options: argparse.Namespace, say: Say) -> Report:
    orders = [
        Movement("purchase", f"order-{number}", {HOT: 1}, {"reference": f"order-{number}"})
        for number in range(1, options.terminals + 1)
    ]
    books = Books({HOT: options.units}, {order.reference: order for order in orders})
    async with make_servers(options, "flash-sale") as servers:
        say(f"{options.servers} servers have found each other; {options.units} units on hand")
        async with servers.client("stockroom") as inventory:
            await inventory.put_item(HOT, name="The article of the day")
            await inventory.receive({HOT: options.units}, reference=OPENING)
        say(f"{options.terminals} terminals want one each")
        began = time.perf_counter()
        hanging = await rush(servers, books, options.timeout)
        seconds = time.perf_counter() - began
        say("the rush is over; looking into the books")
        statuses = await servers.wait_converged()
        digest = digest_of(books.replay())
        books.compare(statuses, digest)
        async with servers.client("auditor") as inventory:
            await books.audit(inventory)
            left = (await inventory.level(HOT)).on_hand
    sold = books.accepted()["purchase"]
    if hanging:
        books.problems.append(f"{hanging} terminals hang")
    if (sold, left) != (min(options.units, options.terminals), options.units - sold):
        books.problems.append(f"{options.units} were to be sold: {sold} are, {left} are left")
    report = describe(statuses, digest, books.problems) | {
        "terminals": options.terminals,
        "units": options.units,
        "sold": sold,
        "refused": books.refused,
        "left": left,
        "hanging": hanging,
        "unknown": books.unknown_resolved,
        "write_gap_ms_max": round(books.watch.gap_s * 1_000, 1),
        "seconds": round(seconds, 3),
        "election": options.election,
        "backend": options.backend,
        "loss": options.loss,
    }
    show(report, say)
    return report


async def rush(servers: ServerProcesses, books: Books, timeout: float | None) -> int:
    """All at once, each with a client of its own. Returns how many got no answer."""
    ready, start, hanging = 0, anyio.Event(), len(books.movements)

    async def terminal(number: int, order: Movement) -> None:
        nonlocal ready, hanging
        async with servers.client(f"till-{number}", timeout=timeout) as inventory:
            ready += 1
            if ready == len(books.movements):
                start.set()
            await start.wait()
            await books.order(inventory, number, order, patience_s=HANG_S / 2)
        hanging -= 1

    with anyio.move_on_after(HANG_S):
        async with anyio.create_task_group() as group:
            for number, order in enumerate(books.movements.values()):
                group.start_soon(terminal, number, order)
    return hanging


def main() -> int:
    parser = make_parser("Many tills want the last units of one article.", terminals=200)
    parser.add_argument("--units", metavar="N", type=positive, default=100, help="on hand (100)")
    return play(parser.parse_args(), sell_out)


if __name__ == "__main__":
    sys.exit(main())
