"""The extension point "transport": datagrams between addresses, lossy and unordered.

Who calls: the runtime, on the event loop. `send` never blocks and never raises for what a
network does (full buffers, unreachable hosts): such datagrams are lost and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeAlias

from attrs import frozen

from distinv.config import Network

Address: TypeAlias = tuple[str, int]
Datagram: TypeAlias = tuple[bytes, Address]
"""What was received, and from where."""


class Transport(Protocol):
    @property
    def address(self) -> Address:
        """Where this transport is bound; the host may be 0.0.0.0."""
        ...

    @property
    def payload_bytes(self) -> int:
        """The largest datagram to send."""
        ...

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        """Send what can be sent; the rest is lost."""
        ...

    async def receive(self) -> list[Datagram]:
        """At least one datagram, as many as there are up to `Limits.turn_datagrams`.

        Raises anyio.ClosedResourceError once the transport is closed.
        """
        ...

    async def probe(self, address: Address) -> bool:
        """True when the host says that nobody listens at `address`; False when nothing is known."""
        ...

    async def aclose(self) -> None: ...


@frozen
class TransportContext:
    """What a transport factory receives. `network.port` 0 means any free port."""

    network: Network
    server: bool


class TransportFactory(Protocol):
    async def __call__(self, context: TransportContext) -> Transport: ...
