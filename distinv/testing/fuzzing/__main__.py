"""`python -m distinv.testing.fuzzing`: see docs/fuzzing.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path


def _at_least(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
        return number

    return convert


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m distinv.testing.fuzzing",
        description="Feed untrusted bytes to everything that takes them.",
    )
    parser.add_argument("--target", default="all", help="a target's name, or all (the default)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--datagrams", type=_at_least(1), default=10_000, help="inputs per target")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="the first seed")
    parser.add_argument("--per-seed", type=_at_least(1), default=0, help="inputs to one scene")
    parser.add_argument("--jobs", type=_at_least(1), default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path(), help="where reproducers are written")
    parser.add_argument("--json", action="store_true", help="a line of JSON per target")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed a reproducer again")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 for a failure. Wrong usage raises SystemExit(2)."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.atheris:
        if options.target == "all":
            parser.error("--atheris takes one target: give --target NAME")
        return _guided(parser, options)

    from distinv.errors import ConfigError
    from distinv.testing.fuzzing import campaign
    from distinv.testing.fuzzing.registry import TARGETS

    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:<10} {target.about}")
        return 0
    try:
        if options.replay is not None:
            return campaign.replay(options.replay)
        return campaign.run(
            target=options.target,
            datagrams=options.datagrams,
            seed=options.seed,
            per_seed=options.per_seed,
            jobs=options.jobs,
            directory=options.out,
            as_json=options.json,
        )
    except ConfigError as error:
        parser.error(str(error))


def _guided(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Load everything anew, instrumented, and let atheris choose the inputs."""
    try:
        atheris = import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install 'distinv[fuzz]'", file=sys.stderr)
        return 2
    for name in [name for name in sys.modules if name.split(".")[0] == "distinv"]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["distinv"]):
        from distinv.errors import ConfigError
        from distinv.testing.fuzzing import guided
    try:
        return guided.run(atheris, options.target, options.datagrams, options.seed, options.out)
    except ConfigError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(main())
