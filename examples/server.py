"""A server: the reference node.

Type each line in a terminal of its own, and the three find each other::

    python examples/server.py shop data/node-1
    python examples/server.py shop data/node-2
    python examples/server.py shop data/node-3

Ctrl-C hands leadership over and stops. `till.py` beside this file is a client for them. The last
thing printed with `--json` is one JSON object, after the stop. Exit status: 0 stopped, 1 failed,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path

import anyio

from distinv import Cluster, InventoryStore
from distinv.errors import ConfigError, DistinvError, PluginError, StorageError


async def serve(options: argparse.Namespace) -> None:
    """Take part until a signal comes. Raises StorageError when the disk fails."""
    failure = None
    cluster = Cluster(
        options.cluster,
        data_dir=options.data,
        expect=options.expect,
        election=options.election,
        key=options.key,
    )
    async with cluster, anyio.create_task_group() as group:
        group.start_soon(stop_on_signal, cluster)
        try:
            await cluster.serve()
        except StorageError as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def stop_on_signal(cluster: Cluster) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            await cluster.stop()


def report(data: Path) -> dict[str, object]:
    """What the stopped server left on its disk."""
    with InventoryStore(data / "store.sqlite3") as store:
        digest = store.digest()
    server = {"name": data.resolve().name, "seq": digest.seq, "digest": digest.value}
    return {"verdict": "ok", "digest": digest.value, "servers": [server]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one server of a cluster.")
    parser.add_argument("cluster", help="the cluster's name")
    parser.add_argument("data", type=Path, help="the directory with all that it must keep")
    parser.add_argument("--expect", metavar="N", type=int, default=3, help="servers at birth (3)")
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--key", metavar="FILE", help="the cluster key (`distinv keygen`)")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    try:
        anyio.run(serve, options, backend=options.backend)
    except DistinvError as error:
        print(f"server: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError | PluginError) else 1
    if options.json:
        print(json.dumps(report(options.data)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
