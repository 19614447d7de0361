"""`distinv serve`: run one server until it is told to stop."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from distinv.cli.options import (
    Commands,
    add_json,
    add_network,
    config_of,
    count,
    run_on,
    servers_of,
    transport_of,
)
from distinv.cli.output import print_json
from distinv.cli.problems import DONE, ServerStopped

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from distinv.runtime.cluster import Cluster

_LOG_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s"
_LOG_LEVELS = ("debug", "info", "warning", "error")


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="run a server",
        description="Run one server of a cluster. It finds the others by itself; SIGTERM and "
        "SIGINT hand leadership over and stop it. The log goes to standard error.",
    )
    parser.add_argument(
        "--data", metavar="DIR", required=True, help="the directory with all that it must keep"
    )
    parser.add_argument("--name", help="the server's name (the last part of DIR)")
    parser.add_argument(
        "--expect", metavar="N", type=count, help="wait for N servers before the cluster is born"
    )
    parser.add_argument("--election", metavar="NAME", default="bully", help="bully, ring, …")
    parser.add_argument("--multicast", metavar="NAME", default="fanout", help="fanout, …")
    parser.add_argument("--discovery", metavar="NAME", help="beacon, static, …")
    parser.add_argument("--storage", metavar="NAME", default="journal", help="journal, memory, …")
    parser.add_argument(
        "--preempt", action="store_true", help="take leadership over from a lower id"
    )
    parser.add_argument(
        "--bind",
        metavar="HOST:PORT",
        help="where to listen (every interface with a key, else loopback; port 4747 or any)",
    )
    parser.add_argument("--log-level", choices=_LOG_LEVELS, default="info")
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="also stop when standard input ends: for a program that starts servers",
    )
    add_json(parser)
    add_network(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format=_LOG_FORMAT,
        datefmt="%Y-%m-%d %H:%M:%S",
        force=True,
    )
    logging.getLogger("distinv").setLevel(options.log_level.upper())
    run_on(options.backend, partial(_serve, options))
    return DONE


async def _serve(options: argparse.Namespace) -> None:
    import anyio

    from distinv.runtime.cluster import Cluster

    cluster = Cluster(
        options.cluster,
        data_dir=options.data,
        expect=options.expect,
        election=options.election,
        multicast=options.multicast,
        discovery=options.discovery,
        transport=transport_of(options),
        storage=options.storage,
        key=options.key,
        bind=options.bind,
        servers=servers_of(options),
        insecure=options.insecure,
        server_name=options.name,
        config=config_of(options),
        preempt=options.preempt,
        seed=options.seed,
    )
    # A signal that comes while the server is being opened waits until it can be stopped.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with cluster:
            _announce(options, "listening", cluster)
            async with anyio.create_task_group() as group:
                group.start_soon(_stop_on_signal, signals, cluster, group)
                if options.until_stdin_closes:
                    group.start_soon(_stop_on_end_of_input, cluster)
                group.start_soon(_announce_ready, options, cluster)
                failure = await _failure_of(cluster)
                group.cancel_scope.cancel()
            if failure is not None:
                raise failure
            _announce(options, "stopped", cluster)


async def _failure_of(cluster: Cluster) -> ServerStopped | None:
    """Serve; an exception group around what went wrong would be no clear line."""
    try:
        await cluster.serve()
    except Exception as error:  # what nobody foresaw is in the log already
        return ServerStopped(str(error) or repr(error))
    return None


async def _stop_on_signal(
    signals: AsyncIterator[signal.Signals], cluster: Cluster, group: TaskGroup
) -> None:
    async for number in signals:
        if cluster.stopping:
            os._exit(128 + number)  # asked twice: at once
        group.start_soon(cluster.stop)


async def _stop_on_end_of_input(cluster: Cluster) -> None:
    import anyio

    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4_096):
            await cluster.stop()
            return


async def _announce_ready(options: argparse.Namespace, cluster: Cluster) -> None:
    with suppress(Exception):  # `serve` tells
        await cluster.ready()
        _announce(options, "ready", cluster)


def _announce(options: argparse.Namespace, event: str, cluster: Cluster) -> None:
    if not options.json:
        return
    told: dict[str, Any] = {
        "event": event,
        "cluster": cluster.name,
        "name": cluster.server_name,
        "node": f"{cluster.node_id:016x}",
        "address": cluster.address,
        "pid": os.getpid(),
    }
    print_json(told)
