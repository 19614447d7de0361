"""A till: the reference client.

Start servers (`server.py` beside this file, or `distinv serve`), then::

    python examples/till.py shop MUG --receive 100                  # goods come in
    python examples/till.py shop MUG --sell 6 --reference order-1   # and go out

The client finds the servers by itself. What it cannot do is decide for the application what an
error means; `settle` shows all there is to decide: not enough stock is an answer, `Unavailable`
means that the command certainly had no effect, and after `OutcomeUnknown` one asks what became
of it. Whatever network and servers do, nothing is sold twice and nothing is forgotten.

The last thing printed with `--json` is one JSON object. Exit status: 0 done, 1 not enough stock
or nobody reached, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable

import anyio
from attrs import frozen

from distinv import InventoryClient
from distinv.errors import (
    ConfigError,
    DistinvError,
    InsufficientStock,
    OutcomeUnknown,
    Unavailable,
)
from distinv.model import Receipt

PATIENCE_S = 60.0
PAUSE_S = 0.1
"""Between attempts. The client has waited and tried for its whole time-out before each."""


@frozen
class Settled:
    """What certainly became of a command."""

    outcome: Receipt | DistinvError
    """The receipt, or the refusal: either has its `seq`."""
    unknown: int
    """How often the outcome was unknown for a while."""

    @property
    def accepted(self) -> bool:
        return isinstance(self.outcome, Receipt)


async def settle(
    inventory: InventoryClient,
    command: Callable[[], Awaitable[Receipt]],
    patience_s: float = PATIENCE_S,
) -> Settled:
    """Call `command` until it is certain what became of it.

    A call is never cut short by cancelling it: its own time-out ends it, and tells how. Raises
    the last error when `patience_s` seconds were not enough.
    """
    until = anyio.current_time() + patience_s
    unknown = 0
    while True:
        try:
            return Settled(await command(), unknown)
        except InsufficientStock as refusal:
            return Settled(refusal, unknown)
        except Unavailable:  # certainly not applied: the same again
            if anyio.current_time() > until:
                raise
            await anyio.sleep(PAUSE_S)
        except OutcomeUnknown as error:
            unknown += 1
            outcome = await _resolve(inventory, error, until)
            if outcome is not None:
                return Settled(outcome, unknown)
            # It had no effect, and will have none: the same again.


async def _resolve(
    inventory: InventoryClient, error: OutcomeUnknown, until: float
) -> Receipt | DistinvError | None:
    """The receipt, the refusal, or None: it had no effect."""
    while True:
        try:
            return await inventory.resolve(error.idempotency_key or "")
        except (Unavailable, OutcomeUnknown):
            if anyio.current_time() > until:
                raise error from None
            await anyio.sleep(PAUSE_S)


async def serve_customer(options: argparse.Namespace) -> dict[str, object]:
    sku, about = options.sku, {"reference": options.reference}
    async with InventoryClient(options.cluster, name=options.name, key=options.key) as inventory:
        if options.receive:
            await inventory.put_item(sku, timeout=PATIENCE_S)  # the servers may be starting, too
            lines = {sku: options.receive}
            await settle(inventory, lambda: inventory.receive(lines, **about))
        sold = True
        if options.sell:
            lines = {sku: options.sell}
            sold = (await settle(inventory, lambda: inventory.purchase(lines, **about))).accepted
        level = await inventory.level(sku)
        digest = await inventory.digest()
        cluster = await inventory.cluster(digest=True)
    return {
        "verdict": "ok" if sold else "refused",
        "digest": digest.value,
        "servers": [
            {"name": server.name, "seq": server.seq, "digest": server.digest}
            for server in cluster.servers
        ],
        "sku": sku,
        "received": options.receive,
        "sold": options.sell if sold else 0,
        "refused": 0 if sold else options.sell,
        "available": level.available,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Receive and sell goods, as a till would.")
    parser.add_argument("cluster", help="the cluster's name")
    parser.add_argument("sku", help="what is received or sold")
    parser.add_argument("--receive", metavar="N", type=int, default=0, help="units that come in")
    parser.add_argument("--sell", metavar="N", type=int, default=0, help="units that go out")
    parser.add_argument("--reference", metavar="TEXT", help="the order's number")
    parser.add_argument("--name", default="till", help="who sells, for the ledger (till)")
    parser.add_argument("--key", metavar="FILE", help="the cluster key (`distinv keygen`)")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    if options.receive < 0 or options.sell < 0:
        parser.error("units are counted from 0 upwards")
    try:
        found = anyio.run(serve_customer, options, backend=options.backend)
    except DistinvError as error:
        print(f"till: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"verdict": error.code, "message": str(error)}))
        return 2 if isinstance(error, ConfigError) else 1
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"received {found['received']}, sold {found['sold']} of {options.sell} x {options.sku};"
            f" {found['available']} available"
        )
    return 0 if found["verdict"] == "ok" else 1


if __name__ == "__main__":
    sys.exit(main())
