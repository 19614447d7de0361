"""Discovery that discovers nothing: the servers are given.

The servers hear each other on their own ports, so there is nothing to listen to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio.lowlevel

from distinv.discovery.api import DiscoveryContext
from distinv.errors import ConfigError
from distinv.transport.api import Address, Datagram
from distinv.transport.resolve import resolve


class StaticDiscovery:
    """The addresses that were given. Made by `open_static`."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = tuple(addresses)

    def targets(self) -> Sequence[Address]:
        return self._addresses

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


async def open_static(context: DiscoveryContext) -> StaticDiscovery:
    """Resolve the servers' names, once. A name with several addresses gives several servers.

    Raises ConfigError when a name has no address, or no servers were given.
    """
    if not context.servers:
        raise ConfigError("static discovery needs servers: name one as HOST:PORT, or use beacon")
    addresses: dict[Address, None] = {}
    for host, port in context.servers:
        if port == 0:
            raise ConfigError(f"the server {host} needs a port other than 0")
        addresses.update(dict.fromkeys(await resolve(host, port)))
    return StaticDiscovery(tuple(addresses))
