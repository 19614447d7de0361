"""Names become numbers once, at the start: nothing waits for a name server afterwards."""

from __future__ import annotations

import socket

import anyio

from distinv.errors import ConfigError
from distinv.transport.api import Address


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """Every IPv4 address of `host`, in the resolver's order, at least one.

    Raises ConfigError when there is none, or the port is not 0..65535.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"{host}:{port} is not an address: a port is at most 65535")
    try:
        socket.inet_pton(socket.AF_INET, host)
        return ((host, port),)
    except OSError:
        pass
    try:
        found = await anyio.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"cannot find an IPv4 address of {host!r}: check the name, or give the number"
        ) from error
    return tuple(dict.fromkeys((str(entry[4][0]), port) for entry in found))
