"""Options that several commands share, and what they mean."""

from __future__ import annotations

import argparse
import getpass
import os
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient
    from distinv.config import Config

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Commands = Any

T = TypeVar("T")

CLUSTER_VARIABLE = "DISTINV_CLUSTER"

_LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "trio": ("trio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
}
"""What `--backend` names: anyio's backend and its options."""


def add_network(parser: argparse.ArgumentParser) -> None:
    """Which cluster, and how to reach it: the same for servers and clients."""
    group = parser.add_argument_group("network")
    default = os.environ.get(CLUSTER_VARIABLE)
    group.add_argument(
        "--cluster",
        metavar="NAME",
        default=default,
        required=default is None,
        help=f"the cluster's name (or the environment's {CLUSTER_VARIABLE})",
    )
    group.add_argument(
        "--key",
        metavar="FILE",
        help="the cluster key, see `distinv keygen` (or the environment's DISTINV_KEY)",
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="leave this machine without a key: anybody on the network can change the stock",
    )
    group.add_argument(
        "--servers",
        metavar="HOST:PORT,…",
        help="where servers are, instead of looking for them",
    )
    group.add_argument(
        "--beacon-port", metavar="PORT", type=port, help="where servers are looked for (4746)"
    )
    group.add_argument(
        "--loss",
        metavar="P",
        type=probability,
        default=0.0,
        help="drop each datagram sent with this probability, to see what happens",
    )
    group.add_argument("--seed", metavar="N", type=whole, help="makes --loss reproducible")
    add_backend(group)


def add_backend(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--backend", choices=tuple(_LOOPS), default="asyncio", help="the event loop (asyncio)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object, at the end")


def add_client(parser: argparse.ArgumentParser) -> None:
    """What every command that asks a cluster takes."""
    add_json(parser)
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=positive, help="how long to wait for an answer (10)"
    )
    parser.add_argument(
        "--actor", metavar="NAME", default=_user(), help="who you are, for the ledger (your login)"
    )
    add_network(parser)


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return None


def in_words(
    words: str, convert: Callable[[str], T], good: Callable[[T], bool] = lambda _: True
) -> Callable[[str], T]:
    """A conversion for argparse that says in `words` what it takes."""

    def convert_or_say(text: str) -> T:
        try:
            value = convert(text)
        except ValueError:
            pass
        else:
            if good(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}")

    return convert_or_say


whole = in_words("a whole number", int)
port = in_words("a port, 1 to 65535", int, lambda number: 0 < number < 65_536)
count = in_words("a whole number of at least 1", int, lambda number: number >= 1)
row_count = in_words("a whole number of at least 0", int, lambda number: number >= 0)
probability = in_words("a number of at least 0, below 1", float, lambda share: 0 <= share < 1)
positive = in_words("a number above 0, below a million", float, lambda each: 0 < each < 1e6)


def config_of(options: argparse.Namespace) -> Config:
    """The default configuration with the options' ports and faults."""
    from attrs import evolve

    from distinv.config import FaultSettings, lan

    config = lan()
    network = evolve(config.network, faults=FaultSettings(loss=options.loss, seed=options.seed))
    if options.beacon_port is not None:
        network = evolve(network, beacon_port=options.beacon_port)
    return evolve(config, network=network)


def transport_of(options: argparse.Namespace) -> str:
    """Faults come by the plugin door, like any other transport."""
    from distinv.transport.faulty import STEERING_VARIABLE

    return "faulty" if options.loss or os.environ.get(STEERING_VARIABLE) else "udp"


def servers_of(options: argparse.Namespace) -> list[str] | None:
    if options.servers is None:
        return None
    return [part.strip() for part in options.servers.split(",") if part.strip()]


def run_on(backend: str, main: Callable[[], Awaitable[T]]) -> T:
    """Run an event loop. Raises ConfigError when it is an extra and not installed."""
    import anyio

    from distinv.errors import ConfigError

    loop, backend_options = _LOOPS[backend]
    if backend != "asyncio" and find_spec(backend) is None:
        raise ConfigError(f"{backend} is not installed: pip install 'distinv[{backend}]'")
    return anyio.run(main, backend=loop, backend_options=backend_options)


def with_client(options: argparse.Namespace, work: Callable[[InventoryClient], Awaitable[T]]) -> T:
    """Find the cluster, do `work`, and close the client."""
    return run_on(options.backend, partial(_with_client, options, work))


async def _with_client(
    options: argparse.Namespace, work: Callable[[InventoryClient], Awaitable[T]]
) -> T:
    from distinv.client.client import InventoryClient

    client = InventoryClient(
        options.cluster,
        name=options.actor,
        key=options.key,
        insecure=options.insecure,
        servers=servers_of(options),
        timeout=options.timeout,
        transport=transport_of(options),
        config=config_of(options),
    )
    async with client:
        return await work(client)
