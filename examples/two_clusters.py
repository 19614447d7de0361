"""Two clusters of one name: what happens when they meet.

    python examples/two_clusters.py --json

Six servers are started in two groups that know nothing of each other, so there are two clusters
named "shop". Then each group gets the addresses of the other, as if a cable had been plugged in.

First both have sold something: nothing may be merged, so both raise an alarm and go on as they
were. Then the same again with a second cluster that nobody has used yet: it dissolves, and its
servers join the other. Judged are the alarms, and what is in stock in the end. The last thing
printed with `--json` is one JSON object. Exit status: 0 all is well, 1 it is not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from attrs import define, evolve, field
from stage import Report, Say, describe, play, show

from distinv import Cluster, InventoryClient
from distinv.config import lan
from distinv.discovery.api import DiscoveryContext
from distinv.transport.api import Address, Datagram
from distinv.wire.messages import StatusReply

SERVERS = 3
"""In each group."""
PATIENCE_S = 60.0
LOOK_S = 0.02
ALARM = "another cluster is also named"

CONFIG = evolve(lan(), timing=evolve(lan().timing, beacon_us=500_000, promote_after_us=500_000))
"""Servers announce themselves more often than they have to, so that nobody waits for that."""


@define(eq=False)
class PhoneBook:
    """A discovery: servers announce themselves to whoever is in the book, which may grow."""

    addresses: list[Address] = field(factory=list)

    async def open(self, context: DiscoveryContext) -> PhoneBook:
        return self

    def targets(self) -> Sequence[Address]:
        return tuple(self.addresses)

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        """Everybody is called at their own address."""

    async def aclose(self) -> None:
        pass


@define(eq=False)
class Group:
    """Some servers that know each other."""

    name: str
    book: PhoneBook = field(factory=PhoneBook)
    servers: list[Cluster] = field(factory=list)

    async def start(self, directory: Path, stack: AsyncExitStack) -> None:
        for number in range(1, SERVERS + 1):
            name = f"{self.name}-{number}"
            server = Cluster(
                "shop",
                data_dir=directory / name,
                server_name=name,
                bind="127.0.0.1:0",
                expect=SERVERS,
                discovery=self.book.open,
                config=CONFIG,
            )
            await stack.enter_async_context(server)
            self.servers.append(server)
            self.book.addresses.append(server.address)
        for server in self.servers:
            await server.ready()

    def client(self) -> InventoryClient:
        return InventoryClient("shop", servers=self.book.addresses[:SERVERS], config=CONFIG)

    @property
    def cluster_ids(self) -> set[int]:
        return {server.status().cluster_id for server in self.servers}


class Alarms(logging.Handler):
    """Who has raised the alarm, and its words."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.words: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        name, _, text = record.getMessage().partition(": ")
        if ALARM in text:
            self.words[name] = text


async def until(condition: Callable[[], bool]) -> bool:
    with anyio.move_on_after(PATIENCE_S):
        while not condition():
            await anyio.sleep(LOOK_S)
        return True
    return False


def meet(one: Group, other: Group) -> None:
    ones, others = list(one.book.addresses), list(other.book.addresses)
    one.book.addresses += others
    other.book.addresses += ones


async def trade(group: Group, received: int, sold: int, say: Say) -> None:
    async with group.client() as inventory:
        await inventory.put_item("MUG")
        await inventory.receive({"MUG": received})
        await inventory.ship({"MUG": sold})
    say(f"{group.name}: received {received} mugs, sold {sold}")


async def stock(group: Group) -> int:
    async with group.client() as inventory:
        return await inventory.available("MUG")


async def both_have_sold(alarms: Alarms, say: Say) -> tuple[dict[str, str], list[str]]:
    """Two clusters that hold client commands: an alarm on both sides, for ever two."""
    problems = []
    north, south = Group("north"), Group("south")
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            for group in (north, south):
                await group.start(Path(directory), stack)
            await trade(north, 10, 3, say)
            await trade(south, 20, 5, say)
            before = (north.cluster_ids, south.cluster_ids)
            say("they meet …")
            meet(north, south)
            everybody = {server.server_name for server in (*north.servers, *south.servers)}
            if not await until(lambda: everybody <= set(alarms.words)):
                problems.append(f"no alarm by {sorted(everybody - set(alarms.words))}")
            words = dict(alarms.words)
            for name in ("north-1", "south-1"):
                say(f"{name}: {words.get(name, 'says nothing')}")
            if (north.cluster_ids, south.cluster_ids) != before:
                problems.append("a cluster is another than it was")
            if (await stock(north), await stock(south)) != (7, 15):
                problems.append("stock was merged")
            say("and both go on by themselves, with 7 and with 15 mugs")
    return words, problems


async def one_is_empty(say: Say) -> tuple[list[StatusReply], str, list[str]]:
    """A cluster without client commands dissolves, and its servers join the other."""
    problems = []
    north, south = Group("north"), Group("south")
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            for group in (north, south):
                await group.start(Path(directory), stack)
            await trade(north, 10, 3, say)
            stays, goes = north.cluster_ids.copy(), south.cluster_ids.copy()
            say("south has sold nothing; they meet …")
            meet(north, south)
            servers = [*north.servers, *south.servers]
            if not await until(lambda: south.cluster_ids == stays and level(servers)):
                problems.append("the empty cluster has not dissolved")
            if await stock(south) != 7:
                problems.append("a server of the dissolved cluster does not serve the other one")
            for cluster_id in sorted(goes):
                kept = sorted(Path(directory).glob(f"*/dissolved-{cluster_id:016x}"))
                say(f"{len(kept)} servers have set aside what they had of {cluster_id:016x}")
                if len(kept) != SERVERS:
                    problems.append("not every server has kept what it had")
            async with north.client() as inventory:
                digest = (await inventory.digest()).value
                replies = await inventory.status()
    if len(replies) != 2 * SERVERS:
        problems.append(f"{len(replies)} servers answer")
    return sorted(replies, key=lambda reply: reply.name), digest, problems


def level(servers: Sequence[Cluster]) -> bool:
    """All have the same log, and as many vote as may."""
    statuses = [server.status() for server in servers]
    votes = {sum(each.votes for each in status.servers) for status in statuses}
    return votes == {5} and len({status.applied for status in statuses}) == 1


async def two_clusters(options: argparse.Namespace, say: Say) -> Report:
    alarms, logger = Alarms(), logging.getLogger("distinv")
    logger.addHandler(alarms)
    logger.propagate = False
    try:
        words, problems = await both_have_sold(alarms, say)
        statuses, digest, more = await one_is_empty(say)
    finally:
        logger.propagate = True
        logger.removeHandler(alarms)
    report = describe(statuses, digest, [*problems, *more])
    show(report, say)
    return report | {"alarms": words}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What two clusters of one name do when they meet.")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return play(parser.parse_args(arguments), two_clusters)


if __name__ == "__main__":
    sys.exit(main())
