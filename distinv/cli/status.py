"""`distinv status`: who leads, who follows, who has no quorum, and how far each server has come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from distinv.cli.options import Commands, add_client, with_client
from distinv.cli.output import plain, print_json, print_table
from distinv.cli.problems import DONE

if TYPE_CHECKING:
    from distinv.client.status import ClusterStatus, ServerStatus

COLUMNS = ("name", "role", "vote", "seq", "index", "lag", "quorum", "address", "state_digest")
SHOWN = 16
"""Digits of the state digest: enough for eyes. `--json` has all."""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "status",
        help="show the servers, the leader, and how far each has come",
        description="Ask every server of the cluster that can be found what it is. `lag` is how "
        "many log entries a server has yet to apply; `quorum` says of one without a leader for how "
        "long that has been so; `state_digest` is equal at equal index.",
    )
    parser.add_argument(
        "--digest",
        action="store_true",
        help="also the digest of the stock, equal at equal seq: seconds for a million levels",
    )
    add_client(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    found = with_client(options, lambda client: client.cluster(digest=options.digest))
    if options.json:
        print_json(plain(found))
        return DONE
    print(headline(found))
    columns = (*COLUMNS, "digest") if options.digest else COLUMNS
    print_table(columns, [row(server)[: len(columns)] for server in found.servers])
    return DONE


def headline(found: ClusterStatus) -> str:
    leader = f"{found.leader} leads" if found.leader else "nobody leads"
    return f"cluster {found.name} ({found.cluster_id:016x}): {leader}, term {found.term}"


def row(server: ServerStatus) -> tuple[object, ...]:
    """One line of the table, in the order of its columns, the digest last."""
    host_port = f"{server.address[0]}:{server.address[1]}" if server.address else ""
    return (
        server.name,
        server.role,
        "yes" if server.votes else "no",
        server.seq,
        server.index,
        server.lag,
        f"none for {_duration(server.no_quorum_us)}" if server.no_quorum_us else "",
        host_port,
        server.state_digest and server.state_digest[:SHOWN],
        server.digest,
    )


def _duration(us: int) -> str:
    return f"{us // 1_000} ms" if us < 1_000_000 else f"{us / 1_000_000:.1f} s"
