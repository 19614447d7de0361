"""`distinv status`: who leads, who follows, and how far each server has come."""

from __future__ import annotations

import argparse

from distinv.cli.options import Commands, add_client, with_client
from distinv.cli.output import plain, print_json, print_table
from distinv.cli.problems import DONE

_COLUMNS = ("name", "role", "seq", "index", "lag", "digest")


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "status",
        help="show the servers, the leader, and how far each has come",
        description="Ask every server of the cluster that can be found what it is. `lag` is how "
        "many log entries a server has yet to apply; digests are equal at equal seq.",
    )
    add_client(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    found = with_client(options, lambda client: client.cluster())
    if options.json:
        print_json(plain(found))
        return DONE
    leader = f"{found.leader} leads" if found.leader else "nobody leads"
    print(f"cluster {found.name} ({found.cluster_id:016x}): {leader}, term {found.term}")
    rows = [
        (*(getattr(server, column) for column in _COLUMNS), _place(server.address))
        for server in found.servers
    ]
    print_table((*_COLUMNS, "address"), rows)
    return DONE


def _place(address: tuple[str, int] | None) -> str:
    return f"{address[0]}:{address[1]}" if address else ""
