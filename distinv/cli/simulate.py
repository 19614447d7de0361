"""`distinv simulate`: whole clusters in virtual time, torn apart by plan and checked."""

from __future__ import annotations

import argparse
from pathlib import Path

from distinv.cli.options import Commands, add_json, count
from distinv.errors import ConfigError


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "simulate",
        help="look for faults of the protocol in virtual time",
        description="Run whole clusters and clients in virtual time, under loss, partitions, "
        "crashes, bad disks and hostile elections, and check every answer. A seed is a run, bit "
        "for bit.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", metavar="A:B", type=_seeds, default=range(100), help="from A up to B (0:100)"
    )
    which.add_argument("--seed", metavar="N", type=_seed, help="one seed: prints its plan")
    parser.add_argument(
        "--schedule",
        metavar="NAME",
        help="tell this story in the worlds of the seeds; `all` tells each, `list` names them",
    )
    bug = parser.add_mutually_exclusive_group()
    bug.add_argument(
        "--canary", action="store_true", help="break the core on purpose: a seed must fail"
    )
    bug.add_argument("--plant", metavar="BUG", help="break it in another way")
    many = parser.add_argument_group("many seeds")
    many.add_argument("--jobs", metavar="J", type=count, help="processes (one per core)")
    many.add_argument(
        "--record", metavar="FILE", type=Path, help="remember there what was run, and go on from it"
    )
    many.add_argument("--first", action="store_true", help="stop at the first seeds that fail")
    one = parser.add_argument_group("one seed")
    one.add_argument("--trace", action="store_true", help="tell its story")
    one.add_argument("--shrink", action="store_true", help="find a smaller run that fails as well")
    one.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="change the plan"
    )
    one.add_argument(
        "--faults", metavar="N,N", type=_numbers, help="only these of the plan's faults, or none"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from distinv.testing.simulator.planted import CANARY

    if options.schedule == "list":
        return _list_schedules()
    plant = CANARY if options.canary else options.plant
    if options.seed is None:
        if options.trace or options.shrink or options.set or options.faults is not None:
            raise ConfigError("--trace, --shrink, --set and --faults need a single seed: --seed N")
        return _run_many(options, plant)
    if options.record or options.first:
        raise ConfigError("--record and --first are for many seeds: --seeds A:B")
    from distinv.testing.simulator import story

    return story.tell(
        options.seed,
        plant=plant,
        schedule=options.schedule,
        settings=options.set,
        faults=options.faults,
        trace=options.trace,
        shrink=options.shrink,
        json=options.json,
    )


def _run_many(options: argparse.Namespace, plant: str | None) -> int:
    from distinv.testing.simulator import campaign
    from distinv.testing.simulator.schedules import SCHEDULES

    schedules = list(SCHEDULES) if options.schedule == "all" else [options.schedule]
    if len(schedules) > 1 and options.record:
        raise ConfigError("--record is for one schedule: name it")
    failed = 0
    for schedule in schedules:
        if len(schedules) > 1 and not options.json:
            print(f"schedule {schedule}", flush=True)
        failed |= campaign.run(
            seeds=options.seeds,
            jobs=options.jobs,
            plant=plant,
            schedule=schedule,
            record=options.record,
            first_failure=options.first,
            json=options.json,
        )
    return failed


def _list_schedules() -> int:
    from distinv.testing.simulator.schedules import SCHEDULES

    width = max(map(len, SCHEDULES))
    for name, schedule in SCHEDULES.items():
        print(f"{name:<{width}}  {schedule.summary}")
    return 0


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    try:
        found = range(int(first), int(last))
    except ValueError:
        raise argparse.ArgumentTypeError("give A:B, such as 0:2000") from None
    if found.start < 0:
        raise argparse.ArgumentTypeError("seeds are numbers from 0 on")
    if not found:
        raise argparse.ArgumentTypeError("there is no seed in it")
    return found


def _seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError("give a number, such as 7") from None
    if seed < 0:
        raise argparse.ArgumentTypeError("seeds are numbers from 0 on")
    return seed


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError("give numbers such as 3,7, or none") from None
