"""`distinv simulate`: whole clusters in virtual time, torn apart by plan and checked."""

from __future__ import annotations

import argparse

from distinv.cli.options import Commands, add_json, count
from distinv.errors import ConfigError


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "simulate",
        help="look for faults of the protocol in virtual time",
        description="Run whole clusters and clients in virtual time, under loss, partitions, "
        "crashes and hostile elections, and check every answer. A seed is a run, bit for bit.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--seeds", metavar="A:B", type=_seeds, default=range(100), help="from A up to B (0:100)"
    )
    which.add_argument("--seed", metavar="N", type=_seed, help="one seed: prints its trace digest")
    parser.add_argument("--trace", action="store_true", help="tell the story of a single seed")
    parser.add_argument(
        "--canary", action="store_true", help="break the core on purpose: a seed must fail"
    )
    parser.add_argument(
        "--plant",
        metavar="BUG",
        help="another bug to break the core with, such as read-unconfirmed",
    )
    parser.add_argument("--jobs", metavar="J", type=count, help="processes (one per core)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    seeds: range = options.seeds if options.seed is None else options.seed
    if options.trace and len(seeds) != 1:
        raise ConfigError("--trace tells of a single seed: add --seed N")

    from distinv.testing import campaign

    return campaign.run(
        seeds=seeds,
        jobs=options.jobs,
        canary=options.canary,
        plant=options.plant,
        trace=options.trace,
        json=options.json,
    )


def _seeds(text: str) -> range:
    first, _, last = text.partition(":")
    try:
        found = range(int(first), int(last))
    except ValueError:
        raise argparse.ArgumentTypeError("give A:B, such as 0:2000") from None
    if not found:
        raise argparse.ArgumentTypeError("there is no seed in it")
    return found


def _seed(text: str) -> range:
    return range(int(text), int(text) + 1)
