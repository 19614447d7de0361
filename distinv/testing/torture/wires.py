"""The network of a campaign, as far as it can be broken.

`SteeredWires` breaks it in the servers' own transports (`distinv.testing.steering`), on one
machine's loopback; `NamespaceWires` (namespaces.py) breaks real links.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distinv.testing.processes import ServerProcess, ServerProcesses
from distinv.transport.faulty import EVERYBODY, Cuts


class Wires(Protocol):
    """Servers are named by their place in `ServerProcesses.servers`. Calls may block shortly."""

    def partition(self, side: Sequence[int]) -> None:
        """Neither these servers hear the others, nor the others them."""
        ...

    def isolate(self, server: int) -> None:
        """Nobody hears it, and it hears nobody; clients neither."""
        ...

    def cut_one_way(self, server: int, way: str, other: int) -> None:
        """`way` is one of `plan.WAYS`; `other` is whom it does not reach, for "pair"."""
        ...

    def cut_clients(self, servers: Sequence[int]) -> None:
        """Clients do not reach these servers; whether they hear them is up to the wires."""
        ...

    def lose(self, loss: float) -> None:
        """All servers lose, and delay, so much of what they send."""
        ...

    def heal(self) -> None:
        """As it was at the start."""
        ...


class SteeredWires:
    """Cuts made in the transports of the servers and of the clients."""

    def __init__(self, servers: ServerProcesses, clients: Cuts) -> None:
        """`clients` are the cuts that all clients share."""
        self._processes = servers
        self._clients = clients

    @property
    def _servers(self) -> tuple[ServerProcess, ...]:
        return self._processes.servers

    def partition(self, side: Sequence[int]) -> None:
        """What the smaller side announces by broadcast is not heard either."""
        for number, server in enumerate(self._servers):
            others = [
                other
                for place, other in enumerate(self._servers)
                if (place in side) != (number in side)
            ]
            server.faults.cut(*(_address(other) for other in others))
            if number in side:
                server.faults.cut_to(self._processes.beacon_address)

    def isolate(self, server: int) -> None:
        self._servers[server].faults.isolate()

    def cut_one_way(self, server: int, way: str, other: int) -> None:
        faults = self._servers[server].faults
        if way == "mute":
            faults.cut_to(EVERYBODY)
        elif way == "deaf":
            faults.cut_from(EVERYBODY)
        else:
            faults.cut_to(_address(self._servers[other]))

    def cut_clients(self, servers: Sequence[int]) -> None:
        for server in servers:
            self._clients.cut(_address(self._servers[server]))

    def lose(self, loss: float) -> None:
        for server in self._servers:
            server.faults.set(loss=loss, delay=loss, duplicate=loss / 10)

    def heal(self) -> None:
        self._clients.heal()
        for server in self._servers:
            server.faults.reset()


def _address(server: ServerProcess) -> tuple[str, int]:
    """Known before it runs: every steered server has a port of its own."""
    assert server.place.bind is not None
    host, _, port = server.place.bind.rpartition(":")
    return (host, int(port))
