"""All servers of a cluster restarted one after the other, and leadership handed over, under load.

Every server gets SIGTERM, ends, is started again, and is waited for until it has all that the
others have; the next one follows. A client's call fails when it raises anything at all.
"""

from __future__ import annotations

import argparse
from time import perf_counter
from typing import Any

import anyio
from attrs import define, field

from benchmarks.figures import longest_gap_ms, quantile, show_figures, summary
from benchmarks.load import SKUS, many_clients, stock_up
from distinv import InventoryClient
from distinv.errors import DistinvError
from distinv.testing.processes import ServerProcesses
from distinv.testing.server_process import wait_until

CALLERS = 64
QUIET_S = 1.0
"""Of service around each event. What was measured does not depend on the next one."""
AROUND_S = 0.5
"""Before and after a hand-over, when gaps are still told to be of it."""
PATIENCE_S = 60.0


@define(eq=False)
class Load:
    stopping: bool = False
    answered: list[float] = field(factory=list)
    took_s: list[float] = field(factory=list)
    failed: list[str] = field(factory=list)

    async def call(self, inventory: InventoryClient, number: int) -> None:
        turn = number * 7_919
        while not self.stopping:
            turn += 1
            asked = perf_counter()
            try:
                await inventory.ship({SKUS[turn % len(SKUS)]: 1})
            except DistinvError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            else:
                self.answered.append(perf_counter())
                self.took_s.append(self.answered[-1] - asked)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    callers = options.callers[0] if options.callers else CALLERS
    restarts, hand_overs, quiet = [], [], []
    load = Load()
    async with ServerProcesses(
        options.servers,
        cluster="rolling",
        directory=options.directory,
        election=options.election,
        backend=options.backend,
        log_level="warning",
    ) as servers:
        async with servers.client("stockroom") as inventory:
            await stock_up(inventory)
            async with (
                many_clients(servers, options.clients) as clients,
                anyio.create_task_group() as group,
            ):
                for number in range(callers):
                    group.start_soon(load.call, clients[number % len(clients)], number)
                await anyio.sleep(QUIET_S)
                began = perf_counter()
                await anyio.sleep(2 * QUIET_S)
                quiet.append(longest_gap_ms(load.answered, began, perf_counter()))
                for _ in range(options.rounds):
                    restarts.append(await roll(servers, load))
                for _ in range(options.transfers):
                    hand_overs.append(await hand_over(inventory, load))
                load.stopping = True
        statuses = await servers.wait_converged()
    return {
        "rolling": {
            "callers": callers,
            "servers": options.servers,
            "rounds": len(restarts),
            "answered": len(load.answered),
            "failed": load.failed[:10],
            "failed_count": len(load.failed),
            "quiet_gap_ms": round(quiet[0], 1),
            "restart_gap_ms": summary(restarts),
            "transfer_gap_ms": summary(hand_overs),
            "transfers": len(hand_overs),
            "call_p99_ms": round(1_000 * quantile(load.took_s, 0.99), 1),
            "call_max_ms": round(1_000 * max(load.took_s), 1),
            "digests": sorted({status.digest for status in statuses}),
        }
    }


async def roll(servers: ServerProcesses, load: Load) -> float:
    """Restart every server once; the longest gap between two answers, in milliseconds."""
    began = perf_counter()
    for server in servers.servers:
        await server.stop(PATIENCE_S)
        await server.start(PATIENCE_S)

        async def follows(name: str = server.name) -> bool:
            status = {each.name: each for each in await servers.ask()}
            found = status.get(name)
            furthest = max((each.applied for each in status.values()), default=0)
            # They go on writing: nobody is ever at the very end.
            return found is not None and furthest - found.applied < 100

        await wait_until(follows, PATIENCE_S, f"{server.name} does not catch up")
        await anyio.sleep(QUIET_S)
    return longest_gap_ms(load.answered, began, perf_counter())


async def hand_over(inventory: InventoryClient, load: Load) -> float:
    """One planned transfer of leadership; the longest gap around it, in milliseconds."""
    began = perf_counter()
    await anyio.sleep(AROUND_S)
    await inventory.transfer_leadership()
    await anyio.sleep(AROUND_S)
    return longest_gap_ms(load.answered, began, perf_counter())


def succeeded(found: dict[str, Any]) -> bool:
    told = found["rolling"]
    return told["failed_count"] == 0 and len(told["digests"]) == 1


def show(found: dict[str, Any]) -> None:
    told = found["rolling"]
    print(
        f"{told['servers']} servers restarted one after the other, {told['rounds']} times, under "
        f"{told['callers']} callers:\n"
        f"{told['answered']:,} calls answered, {told['failed_count']} failed; a call took at most "
        f"{told['call_max_ms']} ms (p99 {told['call_p99_ms']})\n"
        f"longest gap between two answers, ms: undisturbed {told['quiet_gap_ms']}, "
        f"of a round of restarts {show_figures(told['restart_gap_ms'])},\n"
        f"  of a planned transfer ({told['transfers']}) {show_figures(told['transfer_gap_ms'])}"
    )
    for line in told["failed"]:
        print(f"  FAILED: {line}")
