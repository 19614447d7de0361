"""A store of a million levels: a blank server joins, a server restarts, and what both cost.

Two servers begin: one votes, the other is a replica. They are filled by ordinary commands. Then
callers write without a pause, each on skus at random, so that most of what they need is in no
cache, while a third server is started with nothing but the cluster's name: it gets a snapshot,
keeps up for a while, and three servers vote. At last it is stopped and started again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import anyio
from attrs import define, field

from benchmarks.come_back import BY_SNAPSHOT, program_of, store_bytes
from benchmarks.figures import MEGABYTE, longest_gap_ms, quantile
from benchmarks.machine import peak_bytes, resident_bytes
from benchmarks.memory import stock
from distinv import InventoryClient
from distinv.testing.processes import ServerProcess, ServerProcesses
from distinv.testing.server_process import wait_until

CALLERS = 8
LEVELS = 1_000_000
SERVERS = 2
NAME = "White hanging heart t-light holder"
"""An ordinary name; with shorter ones the whole log would be kept, and nobody need a snapshot."""
QUIET_ROUNDS = 4
"""Of writing before the newcomer is started, each as long as a round of the rates."""
PATIENCE_S = 600.0
LOOK_S = 0.002


@define(eq=False)
class Load:
    """Callers that write, and when each of their calls began and was answered."""

    levels: int
    stopping: bool = False
    answered: list[tuple[float, float]] = field(factory=list)
    """When, and how many seconds it took."""

    async def call(self, inventory: InventoryClient, number: int) -> None:
        chance = Random(number)
        while not self.stopping:
            sku = sku_of(chance.randrange(self.levels))
            asked = perf_counter()
            await inventory.adjust({sku: 1}, reason="counted")
            now = perf_counter()
            self.answered.append((now, now - asked))

    def over(self, begin: float, end: float) -> dict[str, float]:
        """What a caller saw in that span, if there was one."""
        if end <= begin:
            return {}
        inside = [took for at, took in self.answered if begin <= at <= end]
        times = [at for at, _ in self.answered]
        return {
            "seconds": round(end - begin, 2),
            "per_s": round(len(inside) / (end - begin), 1),
            "p50_ms": round(1_000 * quantile(inside, 0.5), 2),
            "p99_ms": round(1_000 * quantile(inside, 0.99), 2),
            "max_ms": round(1_000 * max(inside, default=0.0), 1),
            "longest_gap_ms": round(longest_gap_ms(times, begin, end), 1),
        }


@define(eq=False)
class Copying:
    """When the leader's snapshot was in the making, as its directory shows; 0.0: it was not."""

    directory: Path
    began: float = 0.0
    ended: float = 0.0
    received: float = 0.0
    """When the newcomer's copy grew for the last time."""
    installed: float = 0.0
    """When the newcomer said that it goes on from it."""

    newcomer: ServerProcess | None = None

    async def watch(self) -> None:
        size = 0
        while not self.installed:
            there = any(self.directory.glob("snapshot-*"))
            if there and not self.began:
                self.began = perf_counter()
            elif self.began and not self.ended and not there:
                self.ended = perf_counter()
            newcomer = self.newcomer
            if self.ended and newcomer is not None:
                now_there = size_of(newcomer.data_dir / "incoming.sqlite3")
                if now_there > size:
                    size, self.received = now_there, perf_counter()
                if BY_SNAPSHOT in newcomer.log:
                    self.installed = perf_counter()
            await anyio.sleep(LOOK_S)


def size_of(path: Path) -> int:
    """0 when it is not there, or not any more."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def sku_of(number: int) -> str:
    return f"SKU-{number:07}"


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with (
        ServerProcesses(
            SERVERS,
            cluster="million",
            directory=options.directory,
            election=options.election,
            backend=options.backend,
            program=program_of(options),
        ) as servers,
        servers.client("stockroom", timeout=PATIENCE_S) as inventory,
        servers.client("callers") as calling,
    ):
        empty = resident(servers)
        began, levels = perf_counter(), options.levels or LEVELS
        await stock(inventory, levels, NAME)
        told: dict[str, Any] = {"levels": levels, "filled_s": perf_counter() - began}
        leader = await leader_of(servers, inventory)
        await settled(inventory)
        told["memory_mb"] = {"empty": empty, "filled": resident(servers)}
        load = Load(levels)
        async with anyio.create_task_group() as group:
            for number in range(CALLERS):
                group.start_soon(load.call, calling, number)
            await anyio.sleep(options.seconds)  # what is hot gets warm
            quiet = perf_counter()
            await anyio.sleep(QUIET_ROUNDS * options.seconds)
            told |= await join(servers, calling, leader, load, quiet)
            await anyio.sleep(options.seconds)
            load.stopping = True
        newcomer = servers.servers[-1]
        told["store_mb"] = round(store_bytes(newcomer) / MEGABYTE, 1)
        told["memory_mb"]["joined"] = resident(servers)
        told["memory_mb"]["peak"] = peak(servers)
        await settled(calling)
        told["restart_s"] = await restart(newcomer)
        told["memory_mb"]["restarted"] = {newcomer.name: resident(servers)[newcomer.name]}
        statuses = await servers.wait_converged(PATIENCE_S)
    told["digests"] = sorted({status.digest for status in statuses})
    told["filled_s"] = round(told["filled_s"], 1)
    return {"million": told}


async def leader_of(servers: ServerProcesses, inventory: InventoryClient) -> ServerProcess:
    """By the list that the servers push: asking them costs a digest of everything. A client that
    has nothing to say for half a minute is told no more."""

    def known() -> bool:
        return any(each.role == "leader" for each in inventory.servers)

    await wait_until(known, PATIENCE_S, "nobody leads")
    return servers[next(each.name for each in inventory.servers if each.role == "leader")]


async def settled(inventory: InventoryClient) -> None:
    """Everybody has everything that is committed, as far as the others know."""

    def lags() -> bool:
        return all(each.lag == 0 for each in inventory.servers)

    await wait_until(lags, PATIENCE_S, "some servers lag")


async def join(
    servers: ServerProcesses,
    inventory: InventoryClient,
    leader: ServerProcess,
    load: Load,
    quiet: float,
) -> dict[str, Any]:
    """Start a blank server; returns what that did to those who wrote meanwhile."""
    copying = Copying(leader.data_dir)
    began = perf_counter()
    async with anyio.create_task_group() as group:
        group.start_soon(copying.watch)
        copying.newcomer = newcomer = await servers.add()

        def votes() -> bool:
            named = [each for each in inventory.servers if each.name == newcomer.name]
            return bool(named and named[0].votes)

        await wait_until(votes, PATIENCE_S, "the newcomer does not vote")
        voted = perf_counter()
        group.cancel_scope.cancel()
    return {
        "snapshot_s": round(copying.ended - copying.began, 3),
        "installed_s": round(max(0.0, copying.installed - began), 2),
        "voter_s": round(voted - began, 2),
        "writes": {
            "before": load.over(quiet, began),
            "as the server starts": load.over(began, copying.began),
            "as a snapshot is made": load.over(copying.began, copying.ended),
            "as it is sent": load.over(copying.ended, copying.received),
            "as it is looked at": load.over(copying.received, copying.installed),
            "until it is installed": load.over(began, copying.installed),
            "until it votes": load.over(began, voted),
        },
    }


async def restart(server: ServerProcess) -> dict[str, float]:
    """SIGTERM, and start: seconds until it has stopped, and until it knows a leader again."""
    began = perf_counter()
    await server.stop(PATIENCE_S)
    stopped = perf_counter()
    await server.start(PATIENCE_S)
    return {"stop": round(stopped - began, 2), "ready": round(perf_counter() - stopped, 2)}


def resident(servers: ServerProcesses) -> dict[str, float]:
    return {
        server.name: round(resident_bytes(server.pid) / MEGABYTE, 1)
        for server in servers.running
        if server.pid
    }


def peak(servers: ServerProcesses) -> dict[str, float]:
    return {
        server.name: round(peak_bytes(server.pid) / MEGABYTE, 1)
        for server in servers.running
        if server.pid
    }


def succeeded(found: dict[str, Any]) -> bool:
    told = found["million"]
    return told["installed_s"] > 0 and len(told["digests"]) == 1


def show(found: dict[str, Any]) -> None:
    told = found["million"]
    print(
        f"{told['levels']:,} levels, a store of {told['store_mb']} MB, filled by commands in "
        f"{told['filled_s']} s;\n{CALLERS} callers write on skus at random\n"
    )
    columns = ("seconds", "per_s", "p50_ms", "p99_ms", "max_ms", "longest_gap_ms")
    print(f"{'writes':<24}" + "".join(f"{name:>16}" for name in columns))
    for span, figures in told["writes"].items():
        print(f"{span:<24}" + "".join(f"{figures.get(name, 0):>16,}" for name in columns))
    print(
        f"\nsnapshot written in {told['snapshot_s']} s; the blank server had installed it after "
        f"{told['installed_s']} s\nand was a voter after {told['voter_s']} s; "
        f"stopped in {told['restart_s']['stop']} s, "
        f"started again in {told['restart_s']['ready']} s"
    )
    for when, sizes in told["memory_mb"].items():
        listed = ", ".join(f"{name} {size:g}" for name, size in sizes.items())
        print(f"memory, {when}: {listed} MB")
