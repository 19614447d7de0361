"""Measure distinv with durable server processes on this machine.

    python -m benchmarks --quick          # about a minute
    python -m benchmarks --json           # some four minutes, one JSON object at the end

How a cluster is born, grows and comes back is measured by parts that are run by name:

    python -m benchmarks births --runs 200
    python -m benchmarks come-back --commands 200000
    python -m benchmarks million --levels 1000000
    python -m benchmarks rolling --callers 64

Every figure is the median over rounds, with the lowest and the highest beside it. The callers,
the clients and all servers share the cores of this machine, so a figure is worth something only
beside another one of the same machine and the same hour: compare ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias

import anyio
from attrs import asdict, fields

from benchmarks import births, come_back, gap, load, machine, memory, million, rolling
from benchmarks.figures import MEGABYTE, show_figures, summary
from distinv import new_key
from distinv.errors import DistinvError
from distinv.testing.processes import ServerProcesses

PARTS = ("updates", "reads", "gap", "memory")
CALLERS = (1, 64, 512)
READERS = 64
LEVELS = 100_000
DEMONSTRATIONS: dict[str, ModuleType] = {
    "births": births,
    "come-back": come_back,
    "million": million,
    "rolling": rolling,
}
"""Each measures, judges and shows by itself, and is run when it is named."""

Row: TypeAlias = dict[str, Any]


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
            for name in (
                *("parts", "servers", "rounds", "seconds", "clients", "election", "backend"),
                "sealed",
            )
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
    for name, part in DEMONSTRATIONS.items():
        if name in options.parts:
            found |= await part.measure(options)
    if "memory" in options.parts:
        async with make_servers(options) as servers:
            held = await memory.fill(servers, options.levels or LEVELS)
        found["memory_mb"] = {
            "levels": options.levels or LEVELS,
            "empty": summary([size / MEGABYTE for size in held.empty]),
            "full": summary([size / MEGABYTE for size in held.full]),
        }
    return found


async def rates(options: argparse.Namespace, servers: ServerProcesses) -> list[Row]:
    """Updates and reads, in turns, so that a disturbance does not hit one kind alone."""
    kinds: list[tuple[str, load.Work, int]] = []
    if "updates" in options.parts:
        kinds += [("updates", load.update, number) for number in options.callers or CALLERS]
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
        f"durable servers, the callers share {clients}, all on this machine; "
        f"{settings['backend']}, {'sealed' if settings['sealed'] else 'no key'}"
    )
    if found.get("rates"):
        print(
            f"{settings['servers']} servers; median (lowest-highest) of {settings['rounds']} "
            f"rounds of {settings['seconds']:g} s; us: processor time for one call\n"
        )
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
    for name, part in DEMONSTRATIONS.items():
        if name in settings["parts"]:
            part.show(found)


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


# --- the command line -------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure distinv on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds and kills")
    parser.add_argument(
        "parts",
        metavar="PART",
        nargs="*",
        help=f"what to measure: {', '.join(PARTS)} (all of these); or {', '.join(DEMONSTRATIONS)}",
    )
    parser.add_argument("--callers", metavar="N", type=int, nargs="+", help="(1 64 512; 64)")
    parser.add_argument("--clients", metavar="N", type=int, default=1, help="that they share (1)")
    parser.add_argument("--servers", metavar="N", type=int, default=3, help="how many (3)")
    parser.add_argument("--rounds", metavar="N", type=int, help="of each rate (5, quick 3)")
    parser.add_argument("--seconds", metavar="S", type=float, help="of a round (5, quick 2)")
    parser.add_argument("--kills", metavar="N", type=int, help="of leaders (20, quick 5)")
    parser.add_argument("--levels", metavar="N", type=int, help="(100,000; million 1,000,000)")
    parser.add_argument("--runs", metavar="N", type=int, default=200, help="of births (200)")
    parser.add_argument(
        "--side-by-side", metavar="N", type=int, default=4, help="births at a time (4)"
    )
    parser.add_argument(
        "--commands", metavar="N", type=int, default=200_000, help="of come-back (200,000)"
    )
    parser.add_argument(
        "--keep",
        metavar="N",
        type=int,
        help="come-back: servers keep so few entries of their log (what they do by default)",
    )
    parser.add_argument(
        "--transfers", metavar="N", type=int, default=20, help="of leadership, in rolling (20)"
    )
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--sealed", action="store_true", help="with a cluster key")
    parser.add_argument("--directory", metavar="DIR", help="keep the servers' data here")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def main() -> int:
    parser = make_parser()
    options = parser.parse_args()
    known = (*PARTS, *DEMONSTRATIONS)
    unknown = [part for part in options.parts if part not in known]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; choose from: {', '.join(known)}")
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
    good = [part.succeeded(found) for name, part in DEMONSTRATIONS.items() if name in options.parts]
    return 0 if all(good) else 1


def first_of(group: BaseExceptionGroup[DistinvError]) -> DistinvError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DistinvError)
    return error


if __name__ == "__main__":
    sys.exit(main())
