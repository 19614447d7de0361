"""Measure distinv with durable server processes on this machine.

    python -m benchmarks --quick          # about a minute
    python -m benchmarks --json           # some four minutes, one JSON object at the end

Every figure is the median over rounds, with the lowest and the highest beside it. The callers,
the clients and all servers share the cores of this machine, so a figure is worth something only
beside another one of the same machine and the same hour: compare ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any, TypeAlias

import anyio
from attrs import asdict, fields

from benchmarks import gap, load, machine, memory
from distinv import new_key
from distinv.errors import DistinvError
from distinv.testing.processes import ServerProcesses

PARTS = ("updates", "reads", "gap", "memory")
CALLERS = (1, 64, 512)
READERS = 64
MEGABYTE = 1 << 20

Figures: TypeAlias = dict[str, float]
Row: TypeAlias = dict[str, Any]


def summary(values: Sequence[float]) -> Figures:
    return {
        "median": round(median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def make_servers(options: argparse.Namespace) -> ServerProcesses:
    return ServerProcesses(
        options.servers,
        cluster="benchmark",
        directory=options.directory,
        election=options.election,
        backend=options.backend,
        key=new_key() if options.sealed else None,
        log_level="warning",
    )


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All parts asked for; the memory on fresh servers of its own."""
    found: dict[str, Any] = {
        "machine": machine.describe(),
        "settings": {
            name: getattr(options, name)
            for name in ("servers", "rounds", "seconds", "clients", "election", "backend", "sealed")
        },
    }
    if set(PARTS[:3]) & set(options.parts):
        async with make_servers(options) as servers:
            async with servers.client("stockroom") as inventory:
                await load.stock_up(inventory)
            found["rates"] = await rates(options, servers)
            if "gap" in options.parts:
                gaps = await gap.kill_leaders(servers, options.kills)
                found["write_gap_ms"] = {
                    "kills": options.kills,
                    "killed": summary(gaps.killed_ms),
                    "returned": summary(gaps.returned_ms),
                }
    if "memory" in options.parts:
        async with make_servers(options) as servers:
            held = await memory.fill(servers, options.levels)
        found["memory_mb"] = {
            "levels": options.levels,
            "empty": summary([size / MEGABYTE for size in held.empty]),
            "full": summary([size / MEGABYTE for size in held.full]),
        }
    return found


async def rates(options: argparse.Namespace, servers: ServerProcesses) -> list[Row]:
    """Updates and reads, in turns, so that a disturbance does not hit one kind alone."""
    kinds: list[tuple[str, load.Work, int]] = []
    if "updates" in options.parts:
        kinds += [("updates", load.update, callers) for callers in options.callers]
    if "reads" in options.parts:
        kinds.append(("linearizable reads", load.read, READERS))
    rounds: list[list[load.Round]] = [[] for _ in kinds]
    async with load.many_clients(servers, options.clients) as clients:
        for _ in range(options.rounds):
            for (_, work, callers), done in zip(kinds, rounds, strict=True):
                done.append(await load.run_round(servers, clients, work, callers, options.seconds))
    return [
        {"what": what, "callers": callers}
        | {
            field.name: summary([asdict(each)[field.name] for each in done])
            for field in fields(load.Round)
        }
        for (what, _, callers), done in zip(kinds, rounds, strict=True)
    ]


# --- the table --------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    about, settings = found["machine"], found["settings"]
    print(
        f"{about['cores']} cores ({about['cpu']}), Python {about['python']}, {about['system']},\n"
        f"fdatasync {about['fdatasync_us']} us, load average {about['load_average']} at the start"
    )
    clients = "one client" if settings["clients"] == 1 else f"{settings['clients']} clients"
    print(
        f"{settings['servers']} durable servers, the callers share {clients}, all on this machine; "
        f"{settings['backend']}, {'sealed' if settings['sealed'] else 'no key'};\n"
        f"median (lowest-highest) of {settings['rounds']} rounds of {settings['seconds']:g} s; "
        "us: processor time for one call\n"
    )
    if found.get("rates"):
        show_rates(found["rates"])
    if "write_gap_ms" in found:
        gaps = found["write_gap_ms"]
        print(f"write gap over {gaps['kills']} leader kills, {gap.WRITERS} writers, ms:")
        print(f"  leader killed      {show_figures(gaps['killed'])}")
        print(f"  server returned    {show_figures(gaps['returned'])}\n")
    if "memory_mb" in found:
        held = found["memory_mb"]
        print(f"memory of one server, MB: empty {show_figures(held['empty'])}, ", end="")
        print(f"with {held['levels']:,} levels {show_figures(held['full'])}")


def show_rates(rows: Sequence[Row]) -> None:
    print(f"{'':<19}{'callers':>8}{'per s':>25}{'p50 ms':>20}{'p99 ms':>20}", end="")
    print(f"{'leader us':>13}{'follower us':>13}{'client us':>11}")
    for row in rows:
        rate, p50, p99 = (show_figures(row[name]) for name in ("per_s", "p50_ms", "p99_ms"))
        leader, follower, client = (
            f"{row[name]['median']:,.0f}" for name in ("leader_us", "follower_us", "client_us")
        )
        print(f"{row['what']:<19}{row['callers']:>8}{rate:>25}{p50:>20}{p99:>20}", end="")
        print(f"{leader:>13}{follower:>13}{client:>11}")
    print()


def show_figures(figures: Figures) -> str:
    digits = 0 if figures["median"] >= 100 else 1 if figures["median"] >= 10 else 2
    middle, low, high = (f"{figures[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low}-{high})"


# --- the command line -------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure distinv on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds and kills")
    parser.add_argument(
        "parts", metavar="PART", nargs="*", help=f"what to measure: {', '.join(PARTS)} (all)"
    )
    parser.add_argument("--callers", metavar="N", type=int, nargs="+", default=CALLERS)
    parser.add_argument("--clients", metavar="N", type=int, default=1, help="that they share (1)")
    parser.add_argument("--servers", metavar="N", type=int, default=3, help="how many (3)")
    parser.add_argument("--rounds", metavar="N", type=int, help="of each rate (5, quick 3)")
    parser.add_argument("--seconds", metavar="S", type=float, help="of a round (5, quick 2)")
    parser.add_argument("--kills", metavar="N", type=int, help="of leaders (20, quick 5)")
    parser.add_argument("--levels", metavar="N", type=int, default=100_000)
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--sealed", action="store_true", help="with a cluster key")
    parser.add_argument("--directory", metavar="DIR", help="keep the servers' data here")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from: {', '.join(PARTS)}")
    options.parts = options.parts or PARTS
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (2.0 if options.quick else 5.0)
    options.kills = options.kills or (5 if options.quick else 20)
    try:
        found = anyio.run(measure, options, backend=options.backend)
    except* DistinvError as problems:
        print(f"benchmarks: {first_of(problems)}", file=sys.stderr)
        sys.exit(1)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


def first_of(group: BaseExceptionGroup[DistinvError]) -> DistinvError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DistinvError)
    return error


if __name__ == "__main__":
    sys.exit(main())
