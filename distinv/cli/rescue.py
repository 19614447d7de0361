"""`distinv backup`, `restore`, `recover`: copies of the stock, and the ways back from ruin."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from distinv.cli.options import Commands, add_json
from distinv.cli.output import print_json
from distinv.cli.problems import DONE
from distinv.errors import ConfigError

if TYPE_CHECKING:
    from distinv.runtime.rescue import Rescued

_WARNING = (
    "Do this only when a majority of the servers is lost for good. {name} goes on alone with what "
    "{data} has, up to seq {seq}: what was acknowledged after that is lost, if it was acknowledged "
    "at all. What is left of the other servers must never be started again with its data: give "
    "each an empty directory, and it joins. To go on: distinv recover --data {data} --force {name}"
)


def add_to(commands: Commands) -> None:
    backup = commands.add_parser(
        "backup",
        help="copy a server's stock to a file",
        description="Copy the store of one server to FILE, on the server's own machine, whether "
        "it runs or not. The file is a backup of the whole cluster.",
    )
    backup.add_argument("file", metavar="FILE")
    _add_data(backup, "the server's data directory")
    backup.set_defaults(run=_back_up)
    restore = commands.add_parser(
        "restore",
        help="begin a new cluster with a backup",
        description="Make DIR the first server of a new cluster of the same name, with all that "
        "the backup holds. Start it with `distinv serve`; further servers join with empty "
        "directories.",
    )
    restore.add_argument("file", metavar="FILE")
    _add_data(restore, "a directory that is empty, or does not exist")
    restore.set_defaults(run=_restore)
    recover = commands.add_parser(
        "recover",
        help="let one server go on alone when the majority is lost for good",
        description="Make a stopped server the first one of a new cluster with all that it has. "
        "Commands that only the lost servers had are lost; without --force it says so and does "
        "nothing.",
    )
    _add_data(recover, "the server's data directory")
    recover.add_argument(
        "--force", metavar="NAME", help="the cluster's name: you know that data may be lost"
    )
    recover.set_defaults(run=_recover)


def _add_data(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--data", metavar="DIR", type=Path, required=True, help=text)
    add_json(parser)


def _back_up(options: argparse.Namespace) -> int:
    from distinv.runtime.rescue import back_up

    return _tell(options, back_up(options.data, Path(options.file)), "backed up")


def _restore(options: argparse.Namespace) -> int:
    from distinv.runtime.rescue import restore

    return _tell(options, restore(Path(options.file), options.data), "restored")


def _recover(options: argparse.Namespace) -> int:
    from distinv.runtime.rescue import inspect, recover

    found = inspect(options.data)
    if options.force is None:
        raise ConfigError(
            _WARNING.format(name=found.cluster_name, data=options.data, seq=found.seq)
        )
    if options.force != found.cluster_name:
        raise ConfigError(
            f"{options.data} belongs to the cluster {found.cluster_name!r}, not to "
            f"{options.force!r}: give that name with --force"
        )
    return _tell(options, recover(options.data), "recovered")


def _tell(options: argparse.Namespace, found: Rescued, done: str) -> int:
    if options.json:
        print_json(
            {
                "cluster": found.cluster_name,
                "seq": found.seq,
                "digest": found.digest,
                "path": str(found.path),
            }
        )
    else:
        print(
            f"{done} the cluster {found.cluster_name!r} up to seq {found.seq}, "
            f"digest {found.digest}: {found.path}"
        )
    return DONE
