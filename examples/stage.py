"""What the examples that start servers of their own have in common: options, faces, the end.

`play` runs an example and turns whatever happens into one report, one clear line for each
problem, and an exit status: 0 when the verdict is "ok", 1 when it is not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeAlias

import anyio

from distinv import Plugins
from distinv.errors import ConfigError, DistinvError, PluginError
from distinv.testing.processes import ServerProcesses, ServerStatus
from distinv.wire.messages import StatusReply

Say: TypeAlias = Callable[[str], None]
Report: TypeAlias = dict[str, Any]

PROBLEMS_SHOWN = 20


class WrongUsage(Exception):
    """The arguments cannot be played; the message says what to give instead."""


def make_parser(description: str, *, terminals: int) -> argparse.ArgumentParser:
    """A parser with the options that all such examples take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--servers", metavar="N", type=positive, default=3, help="how many (3)")
    parser.add_argument(
        "--terminals",
        metavar="T",
        type=positive,
        default=terminals,
        help=f"concurrent tills, each with a client of its own ({terminals})",
    )
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument(
        "--loss",
        metavar="P",
        type=probability,
        default=0.0,
        help="drop each datagram of every server and client with this probability (0)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        help="how long one call of a terminal may take (10); a short one makes unknown outcomes",
    )
    parser.add_argument("--seed", metavar="N", type=int, help="makes --loss reproducible")
    parser.add_argument(
        "--directory", metavar="DIR", help="keep the servers' data and logs in this directory"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    return parser


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("give a number of at least 1")
    return number


def probability(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError("a probability is at least 0 and below 1")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError("give a number above 0")
    return number


def make_servers(options: argparse.Namespace, cluster: str) -> ServerProcesses:
    """The servers the options ask for, not started yet: enter them. Raises PluginError."""
    Plugins().election(options.election)  # before any process is started
    return ServerProcesses(
        options.servers,
        cluster=cluster,
        directory=options.directory,
        election=options.election,
        backend=options.backend,
        loss=options.loss,
        seed=options.seed,
    )


def play(
    options: argparse.Namespace, work: Callable[[argparse.Namespace, Say], Awaitable[Report]]
) -> int:
    """Run `work` on the chosen event loop, print its report, and return the exit status."""
    say: Say = (lambda text: None) if options.json else _say
    status = 1
    try:
        report = anyio.run(_until_signal, partial(work, options, say), backend=options.backend)
        if isinstance(report, int):
            return 128 + report
    except (DistinvError, WrongUsage, BaseExceptionGroup) as error:
        problem = _only(error)
        if not isinstance(problem, DistinvError | WrongUsage):
            raise
        if isinstance(problem, ConfigError | PluginError | WrongUsage):
            status = 2
        report = {"verdict": "failed", "problems": [str(problem)]}
    else:
        status = 0 if report["verdict"] == "ok" else 1
    for text in report["problems"]:
        print(f"problem: {text}", file=sys.stderr)
    if options.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        print(f"verdict: {report['verdict']}")
    return status


async def _until_signal(work: Callable[[], Awaitable[Report]]) -> Report | int:
    """The report; or the signal, polite or Ctrl-C, that ended it and all servers before."""
    ended_by: list[int] = []

    async def cancel_on_signal(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                ended_by.append(number)
                scope.cancel()

    report: Report = {}
    async with anyio.create_task_group() as group:
        group.start_soon(cancel_on_signal, group.cancel_scope)
        report = await work()
        group.cancel_scope.cancel()
    return report or ended_by[0]


def _say(text: str) -> None:
    print(text, flush=True)


def _only(error: BaseException) -> BaseException:
    """What is in a group of one, or the first of distinv's own errors in a larger one."""
    while isinstance(error, BaseExceptionGroup):
        own = error.subgroup(DistinvError)
        error = (own or error).exceptions[0]
    return error


def describe(
    statuses: Iterable[ServerStatus | StatusReply], digest: str, problems: list[str]
) -> Report:
    """The beginning of every report."""
    hidden = len(problems) - PROBLEMS_SHOWN
    return {
        "verdict": "wrong" if problems else "ok",
        "problems": problems[:PROBLEMS_SHOWN] + [f"and {hidden} more"] * (hidden > 0),
        "digest": digest,
        "servers": [
            {"name": each.name, "role": each.role, "seq": each.seq, "digest": each.digest}
            for each in statuses
        ],
    }


def show(report: Report, say: Say) -> None:
    """The report for people: the servers as a table, then the counts."""
    say(f"{'server':<12}{'role':<12}{'seq':>8}  digest")
    for each in report["servers"]:
        say(f"{each['name']:<12}{each['role']:<12}{each['seq']:>8}  {each['digest']}")
    for name, value in report.items():
        if name not in ("verdict", "problems", "servers"):
            say(f"{name.replace('_', ' '):<20}{value}")
