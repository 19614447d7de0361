"""A majority of the servers is killed while tills go on selling, and comes back.

    python examples/lost_majority.py --json

Twice: the first time the leader is among the killed (SIGKILL), the second time it is spared and
has to notice that it is alone. Meanwhile more tills open, and no write can be acknowledged. Judged
are: every call ends within its time-out, in `Unavailable` (certainly not applied) or in
`OutcomeUnknown` (then the till asks what became of it); each survivor goes on answering
`read="local"`, and what it says was the stock as of the seq that it names; when the killed are
started again the tills go on by themselves; and in the end no order was lost or took effect twice.
The last thing printed with `--json` is one JSON object. Exit status: 0 all is well, 1 it is not,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup
from attrs import define, field, frozen
from books import OPENING, Books, digest_of, effect
from retail_data import Movement
from stage import Report, Say, WrongUsage, describe, make_parser, make_servers, play, seconds, show

from distinv import InventoryClient
from distinv.errors import DistinvError, OutcomeUnknown, Unavailable
from distinv.testing.processes import ServerProcess, ServerProcesses
from distinv.testing.server_process import wait_until

SKU = "ARTICLE"
OPENING_UNITS = 1_000_000
TIMEOUT_S = 1.5
LATE_S = 1.0
"""A call that ends so long after its time-out is late, however busy the machine is."""
NEWCOMERS = 2
"""Tills that open while there is no majority."""
READ_S = 0.05
"""Between two local reads."""
PATIENCE_S = 60.0

ENDS = [each.__name__ for each in (OutcomeUnknown, Unavailable, *Unavailable.__subclasses__())]
"""How a call may end while there is no majority."""

T = TypeVar("T")


@frozen
class Call:
    """One call of a till, however it ended."""

    what: str
    began: float
    ended: float
    end: str
    """"answered", or the error's name."""


@define(eq=False)
class Till:
    """An inventory whose calls are written down."""

    inventory: InventoryClient
    calls: list[Call]

    async def purchase(self, *arguments: Any, **options: Any) -> Any:
        return await self._timed("write", self.inventory.purchase(*arguments, **options))

    async def receive(self, *arguments: Any, **options: Any) -> Any:
        return await self._timed("write", self.inventory.receive(*arguments, **options))

    async def resolve(self, key: str) -> Any:
        return await self._timed("resolve", self.inventory.resolve(key))

    async def _timed(self, what: str, call: Awaitable[T]) -> T:
        began, end = time.perf_counter(), "answered"
        try:
            return await call
        except DistinvError as error:
            end = type(error).__name__
            raise
        finally:
            self.calls.append(Call(what, began, time.perf_counter(), end))


@frozen
class Outage:
    """From when on a majority was gone, and until when nobody was started again."""

    spared: bool
    """The leader was not among the killed."""
    began: float
    ended: float
    resumed: float
    """When the next call of a till was answered."""
    reads: tuple[tuple[str, int, int], ...]
    """Local reads: whom, as of which seq, how much on hand."""


@define(eq=False)
class Load:
    """Terminals that sell and receive until they are told to stop."""

    servers: ServerProcesses
    books: Books
    orders: dict[str, Movement]
    timeout_s: float
    group: TaskGroup
    tills: int = 0
    stopping: bool = False
    calls: list[Call] = field(factory=list)

    def open(self, tills: int) -> None:
        for _ in range(tills):
            self.tills += 1
            self.group.start_soon(self.terminal, self.tills)

    async def terminal(self, number: int) -> None:
        async with self.servers.client(f"till-{number}", timeout=self.timeout_s) as inventory:
            till: Any = Till(inventory, self.calls)
            count = 0
            while not self.stopping:
                count += 1
                kind = "receive" if count % 5 == 0 else "purchase"
                reference = f"{number}-{count}"
                order = Movement(kind, reference, {SKU: 1 + count % 3}, {"reference": reference})
                self.orders[reference] = order
                await self.books.order(till, number, order, patience_s=PATIENCE_S)

    def answered_since(self, moment: float) -> Call | None:
        """The first call to be answered since then."""
        later = [each for each in self.calls if each.ended >= moment and each.end == "answered"]
        return min(later, key=lambda each: each.ended, default=None)


async def lose_majority(options: argparse.Namespace, say: Say) -> Report:
    if options.servers < 3 or options.servers % 2 == 0:
        raise WrongUsage("give an odd number of servers, at least 3: --servers 3")
    timeout_s = options.timeout or TIMEOUT_S
    orders: dict[str, Movement] = {}
    books = Books({SKU: OPENING_UNITS}, orders)
    outages: list[Outage] = []
    async with (
        make_servers(options, "lost-majority") as servers,
        servers.client("manager", timeout=PATIENCE_S) as manager,
    ):
        await manager.put_item(SKU)
        await manager.receive({SKU: OPENING_UNITS}, reference=OPENING)
        async with anyio.create_task_group() as group:
            load = Load(servers, books, orders, timeout_s, group)
            load.open(options.terminals)
            for spared in (False, True):
                await anyio.sleep(options.seconds / 2)
                outages.append(await outage(load, spared, options.seconds, say))
            load.stopping = True
        say("the tills have stopped; looking into the books")
        statuses = await servers.wait_converged()
        digest = digest_of(books.replay())
        books.compare(statuses, digest)
        await books.audit(manager)
    for each in outages:
        judge(each, load, books)
    report = describe(statuses, digest, books.problems) | {
        "orders": len(orders),
        "timeout_s": timeout_s,
        "outages": [tell(each, load) for each in outages],
        "unknown": books.unknown_resolved,
        "terminals": load.tills,
        "election": options.election,
        "backend": options.backend,
        "loss": options.loss,
    }
    show(report, say)
    return report


async def outage(load: Load, spared: bool, lasts_s: float, say: Say) -> Outage:
    """Kill a majority, read from who is left, start the killed again, wait for the next sale."""
    servers = load.servers
    leader = await servers.leader()
    others = [each for each in servers.running if each is not leader]
    killed = (others if spared else [leader, *others])[: len(servers.running) // 2 + 1]
    left = [each for each in servers.running if each not in killed]
    for server in killed:
        await server.kill()
    began = time.perf_counter()
    names = ", ".join(each.name for each in killed)
    say(f"killed {names}; {'the leader' if spared else 'no leader'} is left")
    load.open(NEWCOMERS)
    reads: list[tuple[str, int, int]] = []
    with anyio.move_on_after(lasts_s):
        async with anyio.create_task_group() as readers:
            for server in left:
                readers.start_soon(read, load, server, reads)
    ended = time.perf_counter()
    for server in killed:
        server.launch()
    say(f"started {names} again")
    await wait_until(
        lambda: load.answered_since(ended) is not None, PATIENCE_S, "the tills do not go on"
    )
    await servers.wait_ready()
    first = load.answered_since(ended)
    assert first is not None, "looked at just now"
    return Outage(spared, began, ended, first.ended, tuple(reads))


async def read(load: Load, server: ServerProcess, reads: list[tuple[str, int, int]]) -> None:
    """Ask this one server what it has, again and again."""
    assert server.address is not None, "it is ready, so it has said where it listens"
    async with load.servers.client("reader", servers=[server.address]) as inventory:
        while True:
            try:
                level = await inventory.level(SKU, read="local", timeout=load.timeout_s)
            except Unavailable as error:
                load.books.problems.append(f"no local read from {server.name}: {error}")
            else:
                reads.append((server.name, level.as_of, level.on_hand))
            await anyio.sleep(READ_S)


def during(outage: Outage, load: Load) -> list[Call]:
    """The calls that ran into it: they began before it was over, and none ended before it."""
    return [each for each in load.calls if outage.began <= each.ended and each.began < outage.ended]


def judge(outage: Outage, load: Load, books: Books) -> None:
    """Write down what must not be."""
    on_hand = stock_at(books)
    for call in during(outage, load):
        took_s = call.ended - call.began
        if took_s > load.timeout_s + LATE_S:
            books.problems.append(f"a {call.what} ended after {took_s:.3f} s in {call.end}")
        within = outage.began <= call.began and call.ended <= outage.ended
        if within and call.end not in ENDS:
            books.problems.append(f"a {call.what} without a majority ended in {call.end}")
    last: dict[str, int] = {}
    for name, as_of, units in outage.reads:
        if units != on_hand(as_of):
            books.problems.append(f"{name} said {units} as of {as_of}, not {on_hand(as_of)}")
        if as_of < last.get(name, 0):
            books.problems.append(f"{name} went back to {as_of} from {last[name]}")
        last[name] = as_of
    if not outage.reads:
        books.problems.append("nobody was read from")


def stock_at(books: Books) -> Callable[[int], int]:
    """What was on hand as of a seq, by the answers that the tills were given."""
    done = sorted(
        (answer.seq, effect(books.movements[answer.reference])[SKU])
        for answer in books.answers
        if answer.settled.accepted
    )
    seqs = [seq for seq, _ in done]
    sums = [*accumulate((delta for _, delta in done), initial=books.opening[SKU])]
    return lambda seq: sums[bisect_right(seqs, seq)]


def tell(outage: Outage, load: Load) -> dict[str, object]:
    calls = during(outage, load)
    return {
        "leader": "spared" if outage.spared else "killed",
        "seconds": round(outage.ended - outage.began, 3),
        "writes": dict(Counter(each.end for each in calls if each.what == "write")),
        "resolves": dict(Counter(each.end for each in calls if each.what == "resolve")),
        "longest_call_s": round(max((each.ended - each.began for each in calls), default=0), 3),
        "local_reads": len(outage.reads),
        "as_of": {name: as_of for name, as_of, _ in outage.reads},
        "resumed_after_s": round(outage.resumed - outage.ended, 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = make_parser("A majority of the servers is killed, and comes back.", terminals=8)
    parser.add_argument(
        "--seconds", type=seconds, default=4.0, help="how long a majority is gone (4)"
    )
    return play(parser.parse_args(arguments), lose_majority)


if __name__ == "__main__":
    sys.exit(main())
