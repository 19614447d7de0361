"""`distinv leave`, `remove`, `promote`, `hand-over`: who belongs to it, votes and leads."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from distinv.cli.options import Commands, add_client, with_client
from distinv.cli.output import print_json
from distinv.cli.problems import DONE

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient

_ORDERS = (
    ("leave", "let a server give its vote up and stop: its data is not needed any more"),
    ("remove", "take a server's vote, as of one that is gone for good"),
    ("promote", "give a server a vote now, and with it another one: voters are odd in number"),
)
SUCCESSOR_S = 3.0
"""Several elections."""
GLANCE_S = 0.05


def add_to(commands: Commands) -> None:
    for name, text in _ORDERS:
        parser = commands.add_parser(
            name, help=text, description=f"{text[:1].upper()}{text[1:]}. See docs/operations.md."
        )
        parser.add_argument("server", metavar="SERVER", help="its name, or its id in hexadecimal")
        if name != "promote":
            parser.add_argument(
                "--yes", action="store_true", help="also when only one voter remains"
            )
        add_client(parser)
        parser.set_defaults(run=_run, order=name)
    hand_over = commands.add_parser(
        "hand-over",
        help="let another server lead",
        description="Let another voter lead, by default the one that has come farthest.",
    )
    hand_over.add_argument("server", metavar="SERVER", nargs="?", help="its name, or its id")
    add_client(hand_over)
    hand_over.set_defaults(run=_run, order="hand-over")


def _run(options: argparse.Namespace) -> int:
    done = with_client(options, lambda client: _carry_out(options, client))
    if options.json:
        print_json({"done": done})
    else:
        print(done)
    return DONE


async def _carry_out(options: argparse.Namespace, client: InventoryClient) -> str:
    server = options.server and _named(options.server)
    if options.order == "hand-over":
        before = (await client.cluster()).leader
        await client.transfer_leadership(server)
        return await who_leads(client, server, before)
    if options.order == "promote":
        await client.promote_server(server)
        return f"{options.server} votes"
    if options.order == "leave":
        await client.dismiss_server(server, confirmed=options.yes)
        return f"{options.server} has left and stops"
    await client.remove_server(server, confirmed=options.yes)
    return f"{options.server} does not vote any more"


def _named(text: str) -> str | int:
    """Ids are printed as sixteen hexadecimal digits."""
    if len(text) == 16:
        try:
            return int(text, 16)
        except ValueError:
            pass
    return text


async def who_leads(client: InventoryClient, heir: str | int | None, before: str | None) -> str:
    """It was handed over, to `heir` if that was given. That the successor leads is known a moment
    later; until then others may still name the leader of before."""
    import anyio

    with anyio.move_on_after(SUCCESSOR_S):
        while True:
            status = await client.cluster()
            for server in status.servers:
                wanted = (
                    server.name != before if heir is None else heir in (server.name, server.node)
                )
                if server.name == status.leader and wanted:
                    return f"{server.name} leads"
            await anyio.sleep(GLANCE_S)
    return "leadership was handed over, and nobody leads yet: see distinv status"
