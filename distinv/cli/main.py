"""The command `distinv`: parse, run one command, make every error one clear line.

Exit status: 0 done, 1 refused by the inventory (or a check failed), 2 wrong usage or set-up,
3 unavailable or outcome unknown. With `--json` one JSON object is the last thing printed, also
after an error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from distinv.cli import (
    demo,
    doctor,
    keys,
    members,
    plugins,
    rescue,
    serve,
    simulate,
    status,
    stock,
    torture,
)
from distinv.cli.output import print_json
from distinv.cli.problems import describe, exit_status
from distinv.errors import DistinvError

_COMMANDS = (serve, status, doctor, members, rescue, stock, keys, plugins, simulate, torture, demo)


class _Version(argparse.Action):
    """Looking the version up takes a while: only for those who ask."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import distinv

        print(f"distinv {distinv.__version__}")
        parser.exit()


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="distinv",
        description="A distributed inventory for the LAN: nothing sold twice, nothing lost.",
        epilog="Exit status: 0 done, 1 refused by the inventory, 2 wrong usage or set-up, "
        "3 unavailable or outcome unknown.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status. Wrong usage raises SystemExit(2)."""
    options = make_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except DistinvError as error:
        return _report(error, as_json=getattr(options, "json", False))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _report(error: DistinvError, *, as_json: bool) -> int:
    problem = describe(error)
    print(f"distinv: {problem['message']}", file=sys.stderr)
    if as_json:
        print_json({"error": problem})
    return exit_status(error)
