"""`distinv backup`, `restore`, `recover`: copies of the stock, and the ways back from ruin."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from distinv.cli.options import Commands, add_json
from distinv.cli.output import print_json
from distinv.cli.problems import DONE
from distinv.errors import ConfigError
from distinv.model import datetime_of

if TYPE_CHECKING:
    from distinv.runtime.founding import Rescued

_WARNING = (
    "Do this only when a majority of the servers is lost for good. {name} goes on alone with what "
    "{data} has: its log ends at {end} (term, leader, entry), its store has come to seq {seq}. Of "
    "several servers that are left take the one whose log ends highest, compared in this order: "
    "what was acknowledged and is not in that log is lost. What is left of the other servers must "
    "never be started again with its data: give each an empty directory, and it joins. To go on: "
    "distinv recover --data {data} --force {name}"
)


def add_to(commands: Commands) -> None:
    backup = _add(
        commands,
        "backup",
        "copy a server's stock to a file",
        "Copy the store of one server to FILE, on the server's own machine, whether it runs or "
        "not. The file is a backup of the whole cluster.",
        data="the server's data directory",
        run=_back_up,
    )
    restore = _add(
        commands,
        "restore",
        "begin a new cluster with a backup",
        "Make DIR the first server of a new cluster of the same name, with all that the backup "
        "holds. Start it with `distinv serve`; further servers join with empty directories.",
        data="a directory that is empty, or does not exist",
        run=_restore,
    )
    for parser in (backup, restore):
        parser.add_argument("file", metavar="FILE", type=_path)
    recover = _add(
        commands,
        "recover",
        "let one server go on alone when the majority is lost for good",
        "Make a stopped server the first one of a new cluster with all that it has. Commands that "
        "only the lost servers had are lost; without --force it says so and does nothing.",
        data="the server's data directory",
        run=_recover,
    )
    recover.add_argument(
        "--force", metavar="NAME", help="the cluster's name: you know that data may be lost"
    )


def _add(
    commands: Commands,
    name: str,
    text: str,
    description: str,
    *,
    data: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=description)
    parser.add_argument("--data", metavar="DIR", type=_path, required=True, help=data)
    add_json(parser)
    parser.set_defaults(run=run)
    return parser


def _path(text: str) -> Path:
    try:
        text.encode()
    except UnicodeError:
        raise argparse.ArgumentTypeError("the name is not valid UTF-8") from None
    return Path(text)


def _back_up(options: argparse.Namespace) -> int:
    from distinv.runtime.rescue import back_up

    return _tell(options, back_up(options.data, options.file), "backed up")


def _restore(options: argparse.Namespace) -> int:
    from distinv.runtime.rescue import restore

    return _tell(options, restore(options.file, options.data), "restored")


def _recover(options: argparse.Namespace) -> int:
    from distinv.runtime.recovery import inspect, recover

    found = inspect(options.data)
    if options.force is None:
        raise ConfigError(
            _WARNING.format(
                name=found.cluster_name,
                data=options.data,
                end=f"{found.position.ballot}.{found.position.index}",
                seq=found.seq,
            )
        )
    if options.force != found.cluster_name:
        raise ConfigError(
            f"{options.data} belongs to the cluster {found.cluster_name!r}, not to "
            f"{options.force!r}: give that name with --force"
        )
    return _tell(options, recover(options.data), "recovered")


def _tell(options: argparse.Namespace, found: Rescued, done: str) -> int:
    found_at = datetime_of(found.time_us)
    if options.json:
        print_json(
            {
                "cluster": found.cluster_name,
                "seq": found.seq,
                "time": found_at.isoformat(),
                "digest": found.digest,
                "path": str(found.path),
            }
        )
    else:
        print(
            f"{done} the cluster {found.cluster_name!r} up to seq {found.seq} of "
            f"{found_at.astimezone():%Y-%m-%d %H:%M:%S}, digest {found.digest}: {found.path}"
        )
    return DONE
