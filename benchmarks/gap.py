"""For how long nothing can be written when the leader is killed, and when it returns."""

from __future__ import annotations

import time
from itertools import pairwise

import anyio
from attrs import frozen

from benchmarks.load import SKUS, many_clients
from distinv import InventoryClient
from distinv.testing.processes import ServerProcesses

WRITERS = 8
QUIET_S = 0.5
"""Of service on either side of a kill. What was measured does not depend on the next kill."""


@frozen
class Gaps:
    """Milliseconds without an acknowledged write, one figure for each kill."""

    killed_ms: tuple[float, ...]
    """From the last acknowledgement of the old leader to the first of the new one."""
    returned_ms: tuple[float, ...]
    """The longest gap while the killed server started again and caught up."""


async def kill_leaders(servers: ServerProcesses, kills: int) -> Gaps:
    """Kill the leader so many times with SIGKILL, while writers write."""
    answered: list[float] = []

    async def write(client: InventoryClient, number: int) -> None:
        while True:
            await client.ship({SKUS[number]: 1})
            answered.append(time.perf_counter())

    killed, returned = [], []
    async with many_clients(servers, WRITERS) as clients, anyio.create_task_group() as group:
        for number, client in enumerate(clients):
            group.start_soon(write, client, number)
        for _ in range(kills):
            await anyio.sleep(QUIET_S)
            leader = await servers.leader()
            answered.clear()
            await _some(answered)
            await leader.kill()
            gone = time.perf_counter()
            await servers.leader()
            await _some(answered, after=gone)
            await anyio.sleep(QUIET_S)
            killed.append(_longest(answered))
            answered.clear()
            await leader.start()
            await anyio.sleep(QUIET_S)
            returned.append(_longest(answered))
        group.cancel_scope.cancel()
    return Gaps(tuple(killed), tuple(returned))


async def _some(answered: list[float], after: float = 0.0) -> None:
    """Wait until a write was acknowledged; what was under way at the kill may still arrive."""
    while not answered or answered[-1] <= after:
        await anyio.sleep(0.001)


def _longest(answered: list[float]) -> float:
    return 1_000 * max((later - earlier for earlier, later in pairwise(answered)), default=0.0)
