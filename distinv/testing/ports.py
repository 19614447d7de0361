"""UDP ports of this machine for servers that are started later, and perhaps more than once.

A port that was merely seen to be free may be given to two servers, by one program or by several,
before either of them has bound it. So every port is reserved: as long as somebody holds the TCP
port of the same number, nobody else who asks here gets it. The kernel forgets that with the
process, however it ends.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence

from distinv.testing.server_process import ServerFailed

PORTS = range(12_000, 32_000)
"""Below what systems give to clients (from 32,768 or 49,152 on): a server that is restarted must
find its port free."""

_HOST = "127.0.0.1"


class ReservedPorts:
    """The ports of one program's servers, reserved until `release`."""

    def __init__(self, ports: Sequence[int] = PORTS) -> None:
        self._ports = ports
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A UDP port that nobody has bound, and nobody else takes. Raises ServerFailed."""
        first = secrets.randbelow(len(self._ports))
        for step in range(len(self._ports)):
            port = self._ports[(first + step) % len(self._ports)]
            held = _reserve(port)
            if held is not None:
                self._held.append(held)
                return port
        raise ServerFailed("no UDP port is free on this machine: stop what has them")

    def release(self) -> None:
        """The servers have ended."""
        while self._held:
            self._held.pop().close()

    def __del__(self) -> None:
        """Servers that were described, and never started, have nobody who ends them."""
        self.release()


def free_port() -> int:
    """A UDP port that nobody has bound or reserved at this moment."""
    ports = ReservedPorts()
    try:
        return ports.take()
    finally:
        ports.release()


def _reserve(port: int) -> socket.socket | None:
    """What holds the port, if it can be had."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind((_HOST, port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", port))
    except OSError:
        held.close()
        return None
    return held
