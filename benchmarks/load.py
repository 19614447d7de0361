"""Closed loops: so many callers, each of whom asks again as soon as it has its answer."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anyio
from attrs import frozen

from benchmarks.machine import cpu_us
from distinv import InventoryClient, calls
from distinv.testing.processes import ServerProcesses

SKUS = tuple(f"SKU-{number:04}" for number in range(1_000))
PLENTY = 10**12
WARM_UP_S = 0.3
"""Connections are open, and every path of the program has been taken."""

Work: TypeAlias = Callable[[InventoryClient, str], Awaitable[Any]]


@frozen
class Round:
    """One closed loop over some seconds."""

    per_s: float
    p50_ms: float
    p99_ms: float
    leader_us: float
    """Processor time of the leader for one call."""
    follower_us: float
    """Of one follower, on average."""
    client_us: float
    """Of the process with all callers."""


@asynccontextmanager
async def many_clients(
    servers: ServerProcesses, count: int
) -> AsyncIterator[list[InventoryClient]]:
    async with AsyncExitStack() as stack:
        clients = [servers.client(f"load-{number}") for number in range(count)]
        yield [await stack.enter_async_context(client) for client in clients]


async def stock_up(inventory: InventoryClient) -> None:
    """Enough of everything for as long as a benchmark lasts."""
    await inventory.execute([calls.put_item(sku) for sku in SKUS])
    await inventory.receive(dict.fromkeys(SKUS, PLENTY), reference="opening")


async def update(inventory: InventoryClient, sku: str) -> None:
    await inventory.ship({sku: 1})


async def read(inventory: InventoryClient, sku: str) -> None:
    await inventory.level(sku)


async def run_round(
    servers: ServerProcesses,
    clients: Sequence[InventoryClient],
    work: Work,
    callers: int,
    seconds: float,
) -> Round:
    """`callers` tasks, evenly over the clients, for so many seconds after warming up."""
    took_ns: list[int] = []
    begin = time.perf_counter_ns() + int(WARM_UP_S * 1e9)
    end = begin + int(seconds * 1e9)

    async def call(number: int) -> None:
        client, clock = clients[number % len(clients)], time.perf_counter_ns
        turn, asked = number * 7_919, clock()
        while asked < end:
            await work(client, SKUS[turn % len(SKUS)])
            turn, answered = turn + 1, clock()
            if begin <= answered < end:
                took_ns.append(answered - asked)
            asked = answered

    leader = await servers.leader()
    followers = [server for server in servers.running if server is not leader]
    pids = [os.getpid(), *(server.pid or 0 for server in (leader, *followers))]
    async with anyio.create_task_group() as group:
        for number in range(callers):
            group.start_soon(call, number)
        await anyio.sleep(WARM_UP_S)
        before = [cpu_us(pid) for pid in pids]
        await anyio.sleep(seconds)
        spent = [cpu_us(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    took_ns.sort()
    done = max(1, len(took_ns))
    return Round(
        per_s=len(took_ns) / seconds,
        p50_ms=_at(took_ns, 0.5),
        p99_ms=_at(took_ns, 0.99),
        leader_us=spent[1] / done,
        follower_us=sum(spent[2:]) / max(1, len(followers)) / done,
        client_us=spent[0] / done,
    )


def _at(sorted_ns: Sequence[int], part: float) -> float:
    """The quantile in milliseconds; of nothing, 0."""
    return sorted_ns[int(part * len(sorted_ns))] / 1e6 if sorted_ns else 0.0
