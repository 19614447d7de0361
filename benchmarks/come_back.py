"""A server that was away for so long that the log begins behind it comes back by a snapshot.

One of three servers is stopped; then many commands are written, more bytes of them than a server
keeps of its log; then it is started again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import anyio

from benchmarks.figures import MEGABYTE
from benchmarks.load import SKUS, many_clients, stock_up
from distinv import InventoryClient
from distinv.config import Limits
from distinv.testing.processes import ServerProcess, ServerProcesses

CALLERS = 512
FEW = 4
"""Callers where few commands have to make many entries."""
LOG_BYTES = 2 * Limits().log_keep_bytes
"""What is written while it is away."""
PATIENCE_S = 300.0
BY_SNAPSHOT = "goes on from a snapshot"
"""What a server says that has installed one."""


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    async with ServerProcesses(
        3,
        cluster="come-back",
        directory=options.directory,
        election=options.election,
        backend=options.backend,
        program=program_of(options),
    ) as servers:
        async with servers.client("stockroom") as inventory:
            await stock_up(inventory)
        leader = await servers.leader()
        away = next(server for server in servers.running if server is not leader)
        before = {status.name: status for status in await servers.wait_converged()}[away.name]
        await away.stop()
        written_s = await write(servers, options)
        began = perf_counter()
        await away.start(PATIENCE_S)
        ready_s = perf_counter() - began
        statuses = await servers.wait_converged(PATIENCE_S)
        back_s = perf_counter() - began
        by_snapshot, store_mb = BY_SNAPSHOT in away.log, store_bytes(away) / MEGABYTE
    found = {status.name: status for status in statuses}
    return {
        "come_back": {
            "commands": options.commands,
            "written_s": round(written_s, 1),
            "seq_before": before.seq,
            "seq_after": found[away.name].seq,
            "ready_s": round(ready_s, 2),
            "back_s": round(back_s, 2),
            "store_mb": round(store_mb, 1),
            "by_snapshot": by_snapshot,
            "digests": sorted({status.digest for status in statuses}),
            "state_digests": sorted({status.state_digest for status in statuses}),
            "servers": len(statuses),
        }
    }


def program_of(options: argparse.Namespace) -> Sequence[str]:
    keep = options.keep
    return ("-m", "benchmarks.short_log", str(keep)) if keep else ("-m", "distinv")


async def write(servers: ServerProcesses, options: argparse.Namespace) -> float:
    """So many commands, each with a note that makes the log long enough; how long it took."""
    left = list(range(options.commands))
    callers = FEW if options.keep else CALLERS
    note = "x" * min(Limits().note_chars, LOG_BYTES // options.commands)
    began = perf_counter()

    async def call(client: InventoryClient) -> None:
        while left:
            number = left.pop()
            await client.ship({SKUS[number % len(SKUS)]: 1}, note=note)

    async with (
        many_clients(servers, options.clients) as clients,
        anyio.create_task_group() as group,
    ):
        for number in range(callers):
            group.start_soon(call, clients[number % len(clients)])
    return perf_counter() - began


def store_bytes(server: ServerProcess) -> int:
    return (server.data_dir / "store.sqlite3").stat().st_size


def succeeded(found: dict[str, Any]) -> bool:
    told = found["come_back"]
    return bool(
        told["by_snapshot"]
        and len(told["digests"]) == len(told["state_digests"]) == 1
        and told["servers"] == 3
        and told["seq_after"] - told["seq_before"] == told["commands"]
    )


def show(found: dict[str, Any]) -> None:
    told = found["come_back"]
    how = "by snapshot" if told["by_snapshot"] else "WITHOUT A SNAPSHOT"
    same = "equal" if len(told["digests"]) == len(told["state_digests"]) == 1 else "DIFFERENT"
    print(
        f"away for {told['commands']:,} commands, written in {told['written_s']:,} s "
        f"(seq {told['seq_before']:,} to {told['seq_after']:,});\n"
        f"back {how} of {told['store_mb']} MB: it knew the leader {told['ready_s']} s after its "
        f"start, and had everything after {told['back_s']} s; digests {same}: "
        f"{', '.join(told['digests'])}"
    )
