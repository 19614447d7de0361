"""Do blank servers form one cluster, whoever is started first?

Every run starts three real server processes that know nothing but the name of their cluster and
that three are expected, in one of these orders: all within 50 ms, one after the other with 500 ms
in between (each of the six sequences), or one of them (each in turn) long after the others. A run
is good when every server is in the one cluster with three voters, and one write is on all three.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, TypeAlias

import anyio
from attrs import define, field, frozen

from benchmarks.figures import show_figures, summary
from distinv.errors import DistinvError
from distinv.testing.processes import ServerProcesses
from distinv.testing.server_process import wait_until

Starts: TypeAlias = tuple[float, ...]
"""When each server is started, in seconds."""

SERVERS = 3
WITHIN_S = 0.05
APART_S = 0.5
LATE_S = 4.0
"""More than twice as long as blank servers listen before one of them proposes a cluster."""
PATIENCE_S = 30.0


@frozen
class Birth:
    """One run."""

    order: str
    starts: Starts
    born_s: float
    """From the last start until all know a leader and a write is on all of them; of a run that
    failed, nothing worth knowing."""
    problem: str = ""


def starts_of(run: int) -> tuple[str, Starts]:
    """The orders in turns, and within each of them every sequence in turns."""
    turn, order = divmod(run, 3)
    if order == 0:
        chance = Random(run)
        return "within 50 ms", tuple(chance.uniform(0, WITHIN_S) for _ in range(SERVERS))
    if order == 1:
        places = list(permutations(range(SERVERS)))[turn % 6]
        return "500 ms apart", tuple(APART_S * place for place in places)
    late = turn % SERVERS
    return "one late", tuple(LATE_S * (server == late) for server in range(SERVERS))


async def one_birth(options: argparse.Namespace, run: int) -> Birth:
    order, starts = starts_of(run)
    began = perf_counter()
    ended, problem = began, ""
    with TemporaryDirectory(prefix="birth-") as directory:
        servers = ServerProcesses(
            SERVERS,
            cluster=f"birth-{run}",
            directory=Path(directory),
            election=options.election,
            backend=options.backend,
            starts_s=starts,
        )
        try:
            async with servers:
                problem = await judge(servers)
                ended = perf_counter()
        except DistinvError as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            problem += "".join(f"\n{each.name}:\n{each.log}" for each in servers.servers)
    return Birth(order, starts, ended - began - max(starts), problem)


async def judge(servers: ServerProcesses) -> str:
    """Why it is not one cluster of three; empty when it is."""
    async with servers.client("midwife") as inventory:
        await inventory.put_item("CRADLE")
        await inventory.receive({"CRADLE": 1})
        statuses = await servers.wait_converged()
        if len(statuses) != SERVERS or len({each.digest for each in statuses}) != 1:
            return f"the servers differ: {statuses}"
        found: list[Any] = []

        async def all_answer() -> bool:
            found[:] = await inventory.status()
            return len(found) == SERVERS

        await wait_until(all_answer, PATIENCE_S, "some servers do not answer")
    clusters = sorted({reply.cluster_id for reply in found})
    voters = [sum(each.votes for each in reply.servers) for reply in found]
    leaders = [reply.name for reply in found if reply.role == "leader"]
    if len(clusters) == 1 and voters == [SERVERS] * SERVERS and len(leaders) == 1:
        return ""
    return f"clusters {clusters}, voters {voters}, leaders {leaders}"


@define
class _Runs:
    left: list[int]
    done: list[Birth] = field(factory=list)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All runs, some of them side by side: much of a birth is waiting."""
    runs = _Runs(list(reversed(range(options.runs))))

    async def work() -> None:
        while runs.left:
            birth = await one_birth(options, runs.left.pop())
            runs.done.append(birth)

    async with anyio.create_task_group() as group:
        for _ in range(options.side_by_side):
            group.start_soon(work)
    return {"births": tell(runs.done)} | {"side_by_side": options.side_by_side}


def tell(births: Sequence[Birth]) -> dict[str, Any]:
    orders = {birth.order: None for birth in births}
    bad = [birth for birth in births if birth.problem]
    return {
        "runs": len(births),
        "good": len(births) - len(bad),
        "born_s": {
            order: summary(
                [birth.born_s for birth in births if birth.order == order and not birth.problem]
                or [0.0]
            )
            for order in sorted(orders)
        },
        "problems": [f"{birth.order} {birth.starts}: {birth.problem}" for birth in bad],
    }


def succeeded(found: dict[str, Any]) -> bool:
    return bool(found["births"]["runs"] == found["births"]["good"])


def show(found: dict[str, Any]) -> None:
    births = found["births"]
    print(
        f"one cluster of three in {births['good']} of {births['runs']} births "
        f"({found['side_by_side']} side by side);\n"
        "seconds from the last start until a write was on all three:"
    )
    for order, figures in births["born_s"].items():
        print(f"  {order:<16}{show_figures(figures)}")
    for problem in births["problems"]:
        print(f"  FAILED: {problem}")
