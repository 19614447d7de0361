"""Listening where servers announce themselves, for `distinv doctor`: who is there at all?

A client asks for the servers of one cluster, and hears nobody else. This hears everybody who has
the key, of whatever cluster, and of the others that they are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import anyio
from attrs import define, evolve, field, frozen

from distinv.config import Config, Network
from distinv.discovery.api import DiscoveryContext
from distinv.discovery.beacon import open_beacon
from distinv.entry import NodeId
from distinv.errors import BadDatagram, ConfigError
from distinv.runtime.driver import monotonic_us
from distinv.runtime.settings import choose_door, random_id
from distinv.transport.api import Address, Datagram, TransportContext
from distinv.transport.resolve import resolve
from distinv.transport.udp import open_udp
from distinv.wire.codec import decode_untrusted
from distinv.wire.endpoint import Endpoint
from distinv.wire.events import Notice
from distinv.wire.frame import parse_header_untrusted
from distinv.wire.messages import Beacon
from distinv.wire.seal import KeySeal, PlainSeal


@frozen
class HeardServer:
    """What one process says of itself to everybody."""

    node: NodeId
    boot: int
    """Its run: two runs of one id at the same time are two processes."""
    address: Address
    name: str
    cluster: str
    cluster_id: int
    """0 while it is blank."""
    expect: int
    """How many servers it waits for before the cluster is born; 0 for as many as are found."""
    speaks: tuple[int, int]


@frozen(kw_only=True)
class Heard:
    """Everything that was heard besides the answers of the cluster's servers."""

    servers: tuple[HeardServer, ...] = ()
    notices: tuple[Notice, ...] = ()
    deaf: str = ""
    """Why announcements could not be heard."""
    asked: tuple[Address, ...] = ()
    """Addresses that were given, instead of looking for servers."""
    refused: tuple[Address, ...] = ()
    """Where the machine says that no program listens."""
    here_only: bool = False
    """Without a key only this machine is searched."""
    beacon_port: int = 4746

    def runs(self) -> list[list[HeardServer]]:
        """Of each id that several processes have: all that are not known to be gone."""
        found: dict[tuple[NodeId, str], dict[int, HeardServer]] = {}
        for each in self.servers:
            if each.address not in self.refused:
                found.setdefault((each.node, each.cluster), {})[each.boot] = each
        several = [list(runs.values()) for runs in found.values()]
        return [runs for runs in several if len({run.address for run in runs}) > 1]


@define(eq=False)
class Hearing:
    """An ear at the beacon port; it says nothing."""

    config: Config
    key: bytes | None
    _ear: Endpoint = field(init=False)
    _servers: dict[tuple[NodeId, int], HeardServer] = field(factory=dict)
    _notices: dict[tuple[str, Address], Notice] = field(factory=dict)
    deaf: str = ""

    def __attrs_post_init__(self) -> None:
        self._ear = Endpoint(
            self_id=random_id(),
            boot=random_id(),
            seal=PlainSeal() if self.key is None else KeySeal(self.key),
            random=Random(0),  # it never speaks
            timing=self.config.timing,
            limits=self.config.limits,
            payload_bytes=self.config.network.payload_bytes,
        )

    @property
    def servers(self) -> tuple[HeardServer, ...]:
        return tuple(self._servers.values())

    @property
    def notices(self) -> tuple[Notice, ...]:
        return tuple(self._notices.values())

    @property
    def doubled(self) -> list[Address]:
        """Where ids were heard that were heard in several places: somebody may be gone there."""
        several = Heard(servers=self.servers).runs()
        return [run.address for runs in several for run in runs]

    async def listen(self, *, insecure: bool) -> None:
        """Hear until cancelled. A port that cannot be shared is kept in `deaf`."""
        network, keyed = self.config.network, self.key is not None
        try:
            door = await choose_door(
                network, bind=None, has_key=keyed, insecure=insecure, servers=()
            )
            context = DiscoveryContext(
                network=door.network, servers=(), loopback_only=door.loopback_only, server=True
            )
            discovery = await open_beacon(context)
        except ConfigError as error:
            self.deaf = str(error)
            return
        try:
            await discovery.listen(self.hear)
        finally:
            with anyio.CancelScope(shield=True):
                await discovery.aclose()

    def hear(self, datagram: Datagram) -> None:
        """A datagram from whoever announces itself, or anything else."""
        data, address = datagram
        arrived = self._ear.receive_untrusted(data, address, monotonic_us())
        for event in self._ear.take_events():
            if isinstance(event, Notice) and len(self._notices) < self.config.limits.notices_max:
                self._notices.setdefault((event.kind, event.address), event)
        for incoming in arrived:
            try:
                message = decode_untrusted(incoming.body)
            except BadDatagram:
                continue
            if isinstance(message, Beacon):
                boot = parse_header_untrusted(data).sender_boot
                self._keep(incoming.peer, boot, address, message)

    def _keep(self, node: NodeId, boot: int, address: Address, beacon: Beacon) -> None:
        known = (node, boot) in self._servers
        if not known and len(self._servers) >= self.config.limits.servers_max:
            self._servers.pop(next(iter(self._servers)))
        self._servers[node, boot] = HeardServer(
            node,
            boot,
            address,
            beacon.server_name,
            beacon.cluster_name,
            beacon.cluster_id,
            beacon.expect,
            (beacon.oldest_protocol, beacon.newest_protocol),
        )


async def refused_of(addresses: Sequence[Address], network: Network) -> tuple[Address, ...]:
    """Those of the addresses where the machine says that no program listens."""
    refused = []
    transport = await open_udp(TransportContext(evolve(network, port=0), server=False))
    try:
        for host, port in addresses:
            for address in await resolve(host, port):
                if await transport.probe(address):
                    refused.append((host, port))
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()
    return tuple(dict.fromkeys(refused))
