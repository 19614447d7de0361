"""`distinv demo`: three servers, a rush of orders, a killed leader, and the books checked.

The servers are real processes on this machine, in a cluster of their own. Half-way through the
orders the leader gets a SIGKILL and is started again. At the end everything is judged by a plain
replay of all answers in seq order, which knows nothing of distinv.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from hashlib import sha256
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from distinv.cli.options import (
    Commands,
    add_backend,
    add_json,
    count,
    positive,
    probability,
    run_on,
    whole,
)
from distinv.cli.output import print_json, print_table
from distinv.cli.problems import DONE, REFUSED
from distinv.errors import DistinvError, InsufficientStock

if TYPE_CHECKING:
    from anyio import Event

    from distinv.client.client import InventoryClient
    from distinv.testing.processes import ServerProcesses, ServerStatus

_GOODS = {
    "85123A": "Hanging heart holder",
    "71053": "Metal lantern",
    "84406B": "Cream cupid coat hanger",
    "22423": "Regency cakestand",
    "47566": "Party bunting",
    "21730": "Star T-light holder",
}
_SCARCE = ("85123A", "22423")
"""Of these there is less than the orders ask for, so that the last ones are refused."""
_CALLERS_PER_TILL = 4


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="see it work: three servers, orders, and a killed leader",
        description="Start real servers on this machine, sell orders from concurrent callers, "
        "kill the leader half-way, and check that nothing was lost or sold twice.",
    )
    parser.add_argument("--servers", metavar="N", type=count, default=3, help="how many (3)")
    parser.add_argument("--orders", metavar="N", type=count, default=2_000, help="how many (2000)")
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    add_backend(parser)
    parser.add_argument("--loss", metavar="P", type=probability, default=0.0)
    parser.add_argument("--seed", metavar="N", type=whole, default=1, help="makes the same orders")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=positive, default=30.0, help="of one order (30)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    say: Callable[[str], None] = (lambda text: None) if options.json else _say
    report = run_on(options.backend, partial(_play, options, say))
    if options.json:
        print_json(report)
    else:
        _print_report(report)
    return DONE if report["verdict"] == "ok" else REFUSED


def _say(text: str) -> None:
    print(text, flush=True)


# --- the play ---------------------------------------------------------------------------------


async def _play(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    from distinv.testing.processes import ServerProcesses

    say(f"starting {options.servers} servers")
    async with ServerProcesses(
        options.servers,
        election=options.election,
        backend=options.backend,
        loss=options.loss,
        seed=options.seed,
    ) as servers:
        leader = await servers.leader()
        say(f"they have found each other; {leader.name} leads")
        shop = Shop(servers, Random(options.seed), options.orders, options.timeout)
        await shop.open()
        say(f"selling {options.orders} orders, from {shop.callers} concurrent callers")
        await shop.sell(Killer(servers, say))
        say("all orders are answered; waiting for every server to catch up")
        statuses = await servers.wait_converged()
        problems = await shop.judge(statuses)
        kills = sum(server.kills for server in servers.servers)
    return shop.report(statuses, problems) | {
        "leader_kills": kills,
        "election": options.election,
        "backend": options.backend,
        "loss": options.loss,
    }


class Killer:
    """Kills the leader half-way, while orders are under way, and starts it again."""

    def __init__(self, servers: ServerProcesses, say: Callable[[str], None]) -> None:
        self._servers = servers
        self._say = say

    async def run(self, near: Event, now: Event, done: Event) -> None:
        """When `near`, look for the leader; kill it `now`, and say when that is `done`."""
        await near.wait()
        leader = await self._servers.leader()
        await now.wait()
        await leader.kill()
        done.set()
        self._say(f"half-way: {leader.name}, the leader, was killed (SIGKILL)")
        if len(self._servers.servers) >= 3:
            successor = await self._servers.leader()
            self._say(f"{successor.name} leads, service goes on; starting {leader.name} again")
        await leader.start()


class Shop:
    """The orders, who sends them, and what was answered."""

    def __init__(
        self, servers: ServerProcesses, random: Random, orders: int, timeout: float
    ) -> None:
        self._servers = servers
        self._timeout = timeout
        self._orders = _make_orders(random, orders)
        # An order takes five of every third sku on average.
        self._opening = {sku: orders if sku in _SCARCE else 3 * orders for sku in _GOODS}
        self._half = orders // 2
        self._answers: list[tuple[int, str, bool]] = []
        """(seq, reference, accepted), as the callers heard it."""
        self._answered_at: list[float] = []
        self._failures: list[str] = []
        self.tills = 3
        self.callers = self.tills * _CALLERS_PER_TILL

    async def open(self) -> None:
        """Receive the opening stock."""
        async with self._servers.client("stockroom") as inventory:
            for sku, name in _GOODS.items():
                await inventory.put_item(sku, name=name, timeout=self._timeout)
            await inventory.receive(self._opening, reference="opening", timeout=self._timeout)

    async def sell(self, killer: Killer) -> None:
        """Every order once. The second half waits until the leader is killed."""
        import anyio

        near, half, killed = anyio.Event(), anyio.Event(), anyio.Event()
        waiting = enumerate(self._orders.items())

        async def call(client: InventoryClient) -> None:
            for number, (reference, lines) in waiting:
                if number >= self._half // 2:
                    near.set()
                if number >= self._half:
                    half.set()
                if number >= self._half + self.callers:
                    await killed.wait()
                await self._order(client, reference, lines)

        async with AsyncExitStack() as stack:
            tills = [
                await stack.enter_async_context(self._servers.client(f"till-{number}"))
                for number in range(1, self.tills + 1)
            ]
            async with anyio.create_task_group() as group:
                group.start_soon(killer.run, near, half, killed)
                for till in tills * _CALLERS_PER_TILL:
                    group.start_soon(call, till)

    async def _order(self, client: InventoryClient, reference: str, lines: dict[str, int]) -> None:
        try:
            receipt = await client.purchase(lines, reference=reference, timeout=self._timeout)
            self._answers.append((receipt.seq, reference, True))
        except InsufficientStock as refusal:
            self._answers.append((refusal.seq or 0, reference, False))
        except DistinvError as error:
            self._failures.append(f"order {reference} ended in {error.code}: {error}")
            return
        self._answered_at.append(time.perf_counter())

    # --- the verdict --------------------------------------------------------------------------

    async def judge(self, statuses: tuple[ServerStatus, ...]) -> list[str]:
        """What is wrong, in words; nothing, it is hoped."""
        stock, problems = self._replay()
        problems = self._failures + problems
        for status in statuses:
            if status.digest != _digest(stock):
                problems.append(f"{status.name} has other stock than the answers tell of")
        if len({(status.seq, status.state_digest) for status in statuses}) != 1:
            problems.append("the servers are not in the same state")
        return problems + await self._read_ledger()

    def _replay(self) -> tuple[dict[str, int], list[str]]:
        stock, problems = dict(self._opening), []
        seqs = [seq for seq, _, _ in self._answers]
        if len(seqs) != len(set(seqs)):
            problems.append("two orders were given the same seq")
        for _, reference, accepted in sorted(self._answers):
            lines = self._orders[reference]
            enough = all(stock[sku] >= quantity for sku, quantity in lines.items())
            if enough != accepted:
                problems.append(f"order {reference} was answered wrongly")
            if accepted:
                for sku, quantity in lines.items():
                    stock[sku] -= quantity
        return stock, problems

    async def _read_ledger(self) -> list[str]:
        """Every accepted order is in the ledger once, under the seq its caller was told."""
        told = {reference: seq for seq, reference, accepted in self._answers if accepted}
        found: dict[str, set[int]] = {}
        async with self._servers.client("auditor") as inventory:
            after = None
            while True:
                page = await inventory.ledger(after=after, limit=1_000, timeout=self._timeout)
                for line in page:
                    if line.kind == "ship":
                        found.setdefault(line.reference or "", set()).add(line.seq)
                after = page.next
                if after is None:
                    break
        wrong = {
            reference
            for reference in told.keys() | found.keys()
            if found.get(reference) != {told.get(reference)}
        }
        return [f"the ledger tells order {reference} otherwise" for reference in sorted(wrong)]

    def report(self, statuses: tuple[ServerStatus, ...], problems: list[str]) -> dict[str, Any]:
        times = self._answered_at
        gaps = [later - earlier for earlier, later in pairwise(times)]
        accepted = sum(accepted for _, _, accepted in self._answers)
        return {
            "verdict": "wrong" if problems else "ok",
            "problems": problems,
            "digest": statuses[0].digest,
            "servers": [
                {"name": each.name, "seq": each.seq, "digest": each.digest, "role": each.role}
                for each in statuses
            ],
            "orders": len(self._orders),
            "accepted": accepted,
            "refused": len(self._answers) - accepted,
            "write_gap_ms_max": round(1_000 * max(gaps, default=0.0), 1),
        }


def _make_orders(random: Random, count: int) -> dict[str, dict[str, int]]:
    """One to three lines each, of one to nine pieces, by their reference."""
    orders = {}
    for number in range(1, count + 1):
        lines = random.sample(tuple(_GOODS), random.randint(1, 3))
        orders[f"order-{number}"] = {sku: random.randint(1, 9) for sku in lines}
    return orders


def _digest(stock: dict[str, int]) -> str:
    """The inventory digest, as its definition says."""
    rows = sorted([sku, on_hand] for sku, on_hand in stock.items() if on_hand)
    return sha256(json.dumps(rows).encode()).hexdigest()[:16]


def _print_report(report: dict[str, Any]) -> None:
    print_table(
        ("server", "role", "seq", "digest"),
        [(each["name"], each["role"], each["seq"], each["digest"]) for each in report["servers"]],
    )
    print(
        f"{report['accepted']} orders sold, {report['refused']} refused for want of stock; "
        f"{report['leader_kills']} leader killed, no answer for at most "
        f"{report['write_gap_ms_max']:.0f} ms"
    )
    for problem in report["problems"]:
        print(f"WRONG: {problem}")
    if not report["problems"]:
        print("verdict ok: nothing lost, nothing sold twice, all servers agree")
