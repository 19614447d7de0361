"""`distinv plugins`: what can be chosen, and where it comes from."""

from __future__ import annotations

import argparse

from distinv.cli.options import Commands, add_json
from distinv.cli.output import print_json, print_table
from distinv.cli.problems import DONE


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "plugins",
        help="list elections, transports and other plugins",
        description="List what can be plugged in, by kind, with the package it comes from.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from distinv.plugins.manager import Plugins

    found = Plugins().listing()
    if options.json:
        rows = [
            {
                "kind": each.kind,
                "name": each.name,
                "distribution": each.origin.distribution,
                "version": each.origin.version,
            }
            for each in found
        ]
        print_json({"plugins": rows})
    else:
        print_table(
            ("kind", "name", "from"), [(each.kind, each.name, str(each.origin)) for each in found]
        )
    return DONE
