"""`distinv doctor`: why there is no leader, or what is not as it should be, in plain words."""

from __future__ import annotations

import argparse
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from distinv.cli.options import Commands, add_client, config_of, servers_of, with_client
from distinv.cli.output import print_json
from distinv.cli.problems import DONE, REFUSED
from distinv.errors import DistinvError

if TYPE_CHECKING:
    from distinv.cli.diagnosis import Finding
    from distinv.cli.hearing import Heard, Hearing
    from distinv.client.client import InventoryClient
    from distinv.wire.messages import StatusReply

LISTEN_S = 3.0
"""Servers without a leader make themselves known ten times in this time."""
LISTEN_LONG_S = 7.0
"""When nobody answers: in this time every server makes itself known, of whatever cluster."""


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say in plain words what is wrong with a cluster",
        description="Look for the cluster's servers for some seconds, and say who is there, who "
        "is missing, how many votes are needed, and what else was heard: other clusters, other "
        "keys, other versions, copied servers. Exit status 1 when something is wrong.",
    )
    add_client(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    log = logging.getLogger("distinv.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what is noticed is told below
    try:
        findings = with_client(options, lambda client: _examine(options, client))
    finally:
        log.setLevel(level)
    if options.json:
        print_json({"findings": [{"good": each.good, "text": each.text} for each in findings]})
    else:
        for each in findings:
            print(f"{each.mark}  {each.text}")
    return DONE if all(each.good for each in findings) else REFUSED


async def _examine(options: argparse.Namespace, client: InventoryClient) -> list[Finding]:
    import anyio

    from distinv.cli.diagnosis import diagnose
    from distinv.cli.hearing import Hearing
    from distinv.client.client import KEY_VARIABLE
    from distinv.wire.seal import load_key

    key = load_key(os.environ.get(KEY_VARIABLE) if options.key is None else options.key)
    hearing = Hearing(config_of(options), key)
    async with anyio.create_task_group() as group:
        if options.servers is None:
            group.start_soon(partial(hearing.listen, insecure=options.insecure))
        replies = await _ask(client, min(LISTEN_S, options.timeout or LISTEN_S))
        if not replies and options.servers is None:
            rest_s = min(LISTEN_LONG_S, options.timeout or LISTEN_LONG_S) - LISTEN_S
            if rest_s > 0:
                replies = await _ask(client, rest_s)
        group.cancel_scope.cancel()
    return diagnose(options.cluster, replies, await _heard(options, client, hearing))


async def _ask(client: InventoryClient, seconds: float) -> list[StatusReply]:
    """Everybody who is there at first, and again who was found in that time."""
    import anyio

    found: dict[int, StatusReply] = {}
    end = anyio.current_time() + seconds
    for until in (end - seconds / 2, end):
        left_s = until - anyio.current_time()
        try:
            if left_s > 0:
                replies = await client.status(digest=False, timeout=left_s)
                found.update((reply.node, reply) for reply in replies)
        except DistinvError:
            pass  # why nobody answers is among what was noticed
        await anyio.sleep(max(0.0, until - anyio.current_time()))
    return list(found.values())


async def _heard(options: argparse.Namespace, client: InventoryClient, hearing: Hearing) -> Heard:
    from distinv.cli.hearing import Heard, refused_of
    from distinv.runtime.settings import parse_addresses

    network = hearing.config.network
    asked = parse_addresses(servers_of(options) or (), network)
    notices = {(each.kind, each.address): each for each in (*hearing.notices, *client.noticed)}
    return Heard(
        servers=hearing.servers,
        notices=tuple(notices.values()),
        deaf=hearing.deaf,
        asked=asked,
        refused=await refused_of((*asked, *hearing.doubled), network),
        here_only=hearing.key is None and not options.insecure,
        beacon_port=network.beacon_port,
    )
