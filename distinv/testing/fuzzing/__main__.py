"""`python -m distinv.testing.fuzzing`: see docs/fuzzing.md."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path


def _count(text: str) -> int:
    number = int(text.replace("_", ""))
    if number < 0:
        raise argparse.ArgumentTypeError("less than nothing")
    return number


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m distinv.testing.fuzzing",
        description="Feed untrusted bytes to everything that takes them.",
    )
    parser.add_argument("--target", default="all", help="a target's name, or all (the default)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    parser.add_argument("--datagrams", type=_count, default=10_000, help="inputs per target")
    parser.add_argument("--seed", type=_count, default=0, help="the first seed")
    parser.add_argument("--per-seed", type=_count, default=0, help="inputs to one scene")
    parser.add_argument("--jobs", type=_count, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=Path(), help="where reproducers are written")
    parser.add_argument("--json", action="store_true", help="a line of JSON per target")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed a reproducer again")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    options = parser.parse_args()
    if options.atheris:
        return _guided(options)

    from distinv.errors import ConfigError
    from distinv.testing.fuzzing import campaign
    from distinv.testing.fuzzing.registry import TARGETS

    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:<10} {target.about}")
        return 0
    if options.replay is not None:
        return campaign.replay(options.replay)
    try:
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


def _guided(options: argparse.Namespace) -> int:
    """Load everything anew, instrumented, and let atheris choose the inputs."""
    try:
        atheris = import_module("atheris")
    except ImportError:
        print("atheris is not installed: pip install 'distinv[fuzz]'", file=sys.stderr)
        return 2
    for name in [name for name in sys.modules if name.split(".")[0] == "distinv"]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["distinv"]):
        from distinv.testing.fuzzing import guided
    return guided.run(atheris, options.target, options.datagrams, options.seed, options.out)


if __name__ == "__main__":
    sys.exit(main())
