"""What a user gave, made into what a server needs: names, addresses, where to listen, chance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from random import Random

from attrs import evolve, frozen

from distinv.config import Limits, Network
from distinv.entry import NodeId
from distinv.errors import ConfigError
from distinv.transport.api import Address
from distinv.transport.resolve import resolve
from distinv.transport.udp import is_loopback

EVERYWHERE = "0.0.0.0"
KEY_VARIABLE = "DISTINV_KEY"
"""The environment's variable that names the cluster key's file."""


@frozen
class Door:
    """Where a server is to be heard."""

    network: Network
    """With the host and port to bind."""
    loopback_only: bool


def random_id() -> NodeId:
    """A random number of 1..2**63-1, for a server, and for one run of it."""
    return NodeId((int.from_bytes(os.urandom(8), "big") >> 1) or 1)


def randomness(seed: int | None) -> Random:
    """The same chance for the same seed; without one, a different one every time."""
    return Random(os.urandom(16) if seed is None else seed)


def text_name(what: str, name: object, limits: Limits) -> str:
    """Check a name that has to fit into an announcement. Raises ConfigError."""
    longest = limits.cluster_name_bytes
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(f"{what} is printable text, and {name!r} is not")
    if len(name.encode("utf-8", "replace")) > longest:
        raise ConfigError(f"{what} has at most {longest} bytes: {name!r} is longer")
    return name


def parse_address(text: str, default_host: str, default_port: int) -> Address:
    """Read "HOST:PORT", "HOST" or ":PORT". Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(default_port)
    if ":" in host or not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ConfigError(f"{text!r} is not an address: give HOST:PORT, such as 10.0.0.5:4747")
    return (host or default_host, int(port))


def parse_addresses(servers: Iterable[str | Address], network: Network) -> tuple[Address, ...]:
    """The addresses of other servers, as text or as pairs. Raises ConfigError."""
    if isinstance(servers, str):
        servers = [part.strip() for part in servers.split(",") if part.strip()]
    return tuple(
        parse_address(server, network.host, network.port)
        if isinstance(server, str)
        else (str(server[0]), int(server[1]))
        for server in servers
    )


async def choose_door(
    network: Network,
    *,
    bind: str | None,
    has_key: bool,
    insecure: bool,
    servers: Sequence[Address],
) -> Door:
    """Where to listen. Without a key, and unless told to be `insecure`, on loopback only.

    Raises ConfigError when that is not what was asked for, or a name has no address.
    """
    free = has_key or insecure
    if bind is not None:
        host, port = parse_address(bind, network.host, network.port)
        network = evolve(network, host=host, port=port, port_explicit=":" in bind)
    elif free and network.host == Network().host:
        network = evolve(network, host=EVERYWHERE)
    host = (await resolve(network.host, network.port))[0][0]
    if not free and not is_loopback(host):
        raise ConfigError(
            f"{network.host} can be reached from other machines, and there is no cluster key: "
            "make one with `distinv keygen` and give it to every server and client, or say "
            "--insecure (insecure=True) and let anybody change the stock"
        )
    if is_loopback(host):
        await _check_reachable(servers, host)
    return Door(evolve(network, host=host), loopback_only=not free)


async def _check_reachable(servers: Sequence[Address], host: str) -> None:
    for server_host, port in servers:
        for address in await resolve(server_host, port):
            if not is_loopback(address[0]):
                raise ConfigError(
                    f"the server {server_host}:{port} is on another machine, and this one is "
                    f"bound to {host}: give a cluster key (or --insecure), and no loopback "
                    "address to bind"
                )
