"""The extension point "discovery": where to announce oneself, and where to hear others.

Discovery informs, the log decides: whoever is found is spoken to, nothing more. What is
announced are sealed datagrams that the engine makes; discovery only knows destinations. They
are sent from the server's own port, so their source is where to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen

from distinv.config import Network
from distinv.transport.api import Address, Datagram


class Discovery(Protocol):
    def targets(self) -> Sequence[Address]:
        """Where an announcement goes now. Called at every announcement: interfaces change."""
        ...

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        """Hear announcements until cancelled. Returns at once when there is nothing to hear.

        Called again after that: a server listens once before it takes part, and then for good.
        """
        ...

    async def aclose(self) -> None: ...


@frozen
class DiscoveryContext:
    """What a discovery factory receives."""

    network: Network
    servers: Sequence[Address]
    """Addresses given by the user; empty when none were."""
    loopback_only: bool
    """True while there is no key: announce on this machine only."""
    server: bool
    """False for a client, which need not hear on the shared port: it is answered directly."""


class DiscoveryFactory(Protocol):
    async def __call__(self, context: DiscoveryContext) -> Discovery: ...
