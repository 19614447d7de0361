"""`distinv status`: who leads, who follows, and how far each server has come."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from distinv.cli.options import Commands, add_client, with_client
from distinv.cli.output import print_json, print_table
from distinv.cli.problems import DONE

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient
    from distinv.wire.messages import StatusReply


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
    found = summary(with_client(options, lambda client: _ask(client, options.timeout)))
    if options.json:
        print_json(found)
        return DONE
    rows = [
        (*(server[column] for column in _COLUMNS), ":".join(map(str, server["address"])))
        for server in found["servers"]
    ]
    leader = found["leader"] or "no leader"
    print(f"cluster {found['cluster']} ({found['cluster_id']}): {leader}, term {found['term']}")
    print_table((*_COLUMNS, "address"), rows)
    return DONE


_COLUMNS = ("name", "role", "seq", "index", "lag", "digest")


async def _ask(client: InventoryClient, timeout: float | None) -> tuple[StatusReply, ...]:
    replies: tuple[StatusReply, ...] = await client.status(timeout=timeout)
    return replies


def summary(replies: tuple[StatusReply, ...]) -> dict[str, Any]:
    """All replies as one picture; those servers that others name and that are silent, too."""
    newest = max(replies, key=lambda reply: (reply.role == "leader", reply.ballot, reply.commit))
    names = {info.node: info.name for reply in replies for info in reply.servers}
    names |= {reply.node: reply.name for reply in replies}
    addresses = {info.node: info.address for reply in replies for info in reply.servers}
    commit = max(reply.commit for reply in replies)
    servers: list[dict[str, Any]] = [
        {
            "name": reply.name,
            "node": f"{reply.node:016x}",
            "role": reply.role,
            "address": addresses.get(reply.node) or (),
            "seq": reply.seq,
            "index": reply.applied,
            "lag": max(0, commit - reply.applied),
            "digest": reply.digest,
            "state_digest": reply.state_digest,
        }
        for reply in replies
    ]
    answered = {reply.node for reply in replies}
    servers += [
        {
            "name": info.name,
            "node": f"{info.node:016x}",
            "role": "unreachable",
            "address": info.address or (),
            "seq": None,
            "index": None,
            "lag": None,
            "digest": None,
            "state_digest": None,
        }
        for info in newest.servers
        if info.node not in answered
    ]
    return {
        "cluster": newest.cluster_name,
        "cluster_id": f"{newest.cluster_id:016x}",
        "leader": names.get(newest.leader),
        "term": newest.ballot.term,
        "election": newest.election,
        "servers": sorted(servers, key=lambda server: str(server["name"])),
    }
