"""`distinv torture`: real servers, every fault there is, and a checker of every answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from distinv.cli.options import (
    Commands,
    add_backend,
    add_json,
    count,
    in_words,
    positive,
    probability,
    row_count,
    run_on,
    whole,
)
from distinv.cli.output import print_json
from distinv.cli.problems import DONE, REFUSED
from distinv.errors import ConfigError

if TYPE_CHECKING:
    from distinv.testing.torture.campaign import Settings
    from distinv.testing.torture.plan import Kind

_LINE_CHARS = 100


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "torture",
        help="look for faults with real servers",
        description="Start real servers, kill, pause, cut and starve them while clients work, and "
        "check every answer. Or check a history that was written before.",
    )
    parser.add_argument(
        "--duration", metavar="SECONDS", type=positive, default=60.0, help="how long (60)"
    )
    parser.add_argument(
        "--leader-kills", metavar="N", type=row_count, default=0, help="go on until so many"
    )
    parser.add_argument("--servers", metavar="N", type=_servers, default=5, help="how many (5)")
    parser.add_argument("--clients", metavar="N", type=count, default=3, help="how many (3)")
    parser.add_argument("--callers", metavar="N", type=count, default=4, help="of each client (4)")
    parser.add_argument(
        "--think",
        metavar="MS",
        type=row_count,
        default=30,
        help="how long a caller waits before its next call, at most (30)",
    )
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--multicast", metavar="NAME", default="fanout", help="fanout, …")
    add_backend(parser)
    parser.add_argument(
        "--loss", metavar="P", type=probability, default=0.0, help="lose so much all the time"
    )
    parser.add_argument("--key", action="store_true", help="seal everything with a key of its own")
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole,
        help="draws the same faults; not the same run",
    )
    parser.add_argument(
        "--faults",
        metavar="KIND,…",
        help="only these: leader_kill kill pause partition isolation one_way clients loss "
        "disk_full restart rolling leave disk_lost",
    )
    parser.add_argument(
        "--plant",
        metavar="BUG",
        default="",
        help="break the servers on purpose: the campaign must fail",
    )
    parser.add_argument(
        "--namespaces",
        action="store_true",
        help="each server a host of its own, behind a bridge; needs root",
    )
    parser.add_argument(
        "--history", metavar="FILE", type=Path, help="write every call, as JSON lines"
    )
    parser.add_argument(
        "--check", metavar="FILE", type=Path, help="only judge a history; starts nothing"
    )
    add_json(parser)
    parser.set_defaults(run=run, usual=vars(parser.parse_args([])))


def _servers(text: str) -> int:
    from distinv.config import Limits

    most = Limits().servers_max
    return in_words(f"a whole number from 1 to {most}", int, lambda each: 1 <= each <= most)(text)


def run(options: argparse.Namespace) -> int:
    if options.check is not None:
        return _check(options)
    from distinv.testing.torture.campaign import run_campaign
    from distinv.testing.torture.report import campaign_report, describe_campaign

    settings = _settings(options)
    say, done = _narrator()
    outcome = run_campaign(settings, partial(run_on, options.backend), say)
    done()
    if options.json:
        print_json(campaign_report(outcome))
    else:
        print("\n".join(describe_campaign(outcome)), flush=True)
    if outcome.interrupted:
        return 128 + outcome.interrupted
    return REFUSED if outcome.verdict == "failed" else DONE


def _check(options: argparse.Namespace) -> int:
    from distinv.testing.torture.checker import check
    from distinv.testing.torture.history import read_history
    from distinv.testing.torture.report import describe_history, history_report

    given = vars(options)
    for name, value in options.usual.items():
        if given[name] != value and name not in ("check", "json"):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} does not go with --check, which starts nothing")
    calls = read_history(options.check)
    judgement = check(calls)
    if options.json:
        print_json(history_report(calls, judgement))
    else:
        print("\n".join(describe_history(calls, judgement)), flush=True)
    return DONE if judgement.ok else REFUSED


def _settings(options: argparse.Namespace) -> Settings:
    from attrs import evolve

    from distinv.testing.torture.campaign import Settings

    settings = Settings(
        duration_s=options.duration,
        leader_kills=options.leader_kills,
        servers=options.servers,
        clients=options.clients,
        callers=options.callers,
        think_us=options.think * 1_000,
        election=options.election,
        multicast=options.multicast,
        server_backend=options.backend,
        loss=options.loss,
        sealed=options.key,
        namespaces=options.namespaces,
        kinds=_kinds(options.faults),
        plant=options.plant,
        history=options.history,
    )
    return settings if options.seed is None else evolve(settings, seed=options.seed)


def _kinds(text: str | None) -> tuple[Kind, ...]:
    from distinv.testing.torture import plan

    if text is None:
        return plan.ALL
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"--faults names no fault; choose from {', '.join(plan.ALL)}")
    for name in names:
        if name not in [kind.value for kind in plan.ALL]:
            raise ConfigError(f"there is no fault {name!r}; choose from {', '.join(plan.ALL)}")
    return tuple(kind for kind in plan.ALL if kind.value in names)


def _narrator() -> tuple[Callable[[str], None], Callable[[], None]]:
    """What says on a terminal what happens, in one line; and what ends that line."""
    if not sys.stderr.isatty():
        return (lambda line: None), (lambda: None)

    def say(line: str) -> None:
        print(f"\r{line:{_LINE_CHARS}.{_LINE_CHARS}}", end="", file=sys.stderr, flush=True)

    return say, lambda: print(file=sys.stderr, flush=True)
