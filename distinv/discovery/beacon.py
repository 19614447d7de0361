"""Discovery by broadcast and multicast: everybody on the local network, without addresses.

An announcement goes to the broadcast address of every interface, to the multicast group, and
to this machine's loopback, all at the beacon port. Servers share that port: each of them gets
a copy. That is so on Linux with SO_REUSEADDR alone, for sockets bound to every address and for
those bound to the loopback's broadcast address only; the BSDs and macOS want SO_REUSEPORT.

A machine without a network, or with one that refuses, is not an error: then nobody is found.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Interface

import anyio
import anyio.lowlevel
import ifaddr

from distinv.config import Limits, Network
from distinv.discovery.api import DiscoveryContext
from distinv.errors import ConfigError
from distinv.transport.api import Address, Datagram
from distinv.transport.resolve import resolve
from distinv.transport.udp import is_loopback

LOOPBACK_BROADCAST = "127.255.255.255"

_DATAGRAM_BYTES_MAX = 65_535
_BATCH = Limits().turn_datagrams
_PREFIX_MAX = 30
"""An interface whose network is smaller has no broadcast address."""


class BeaconDiscovery:
    """Targets, and for a server the shared socket. Made by `open_beacon`."""

    def __init__(
        self, network: Network, *, loopback_only: bool, shared: socket.socket | None
    ) -> None:
        self._network = network
        self._loopback_only = loopback_only
        self._shared = shared
        self._joined: dict[str, None] = {}
        self._interfaces: tuple[IPv4Interface, ...] = ()
        self._interfaces_until_us = 0

    def targets(self) -> Sequence[Address]:
        """Where an announcement goes; looks at the interfaces again after a second."""
        port = self._network.beacon_port
        if self._loopback_only:
            return ((LOOPBACK_BROADCAST, port),)
        self._refresh()
        hosts = [LOOPBACK_BROADCAST]
        hosts.extend(
            str(interface.network.broadcast_address)
            for interface in self._interfaces
            if interface.network.prefixlen <= _PREFIX_MAX
        )
        hosts.append(self._network.beacon_group)
        return tuple((host, port) for host in dict.fromkeys(hosts))

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        """Hear announcements until cancelled; a client returns at once."""
        shared = self._shared
        if shared is None:
            await anyio.lowlevel.checkpoint()
            return
        buffer = bytearray(_DATAGRAM_BYTES_MAX)
        while True:
            await anyio.wait_readable(shared)
            for _ in range(_BATCH):
                try:
                    size, address = shared.recvfrom_into(buffer)
                except OSError:
                    break
                deliver((bytes(buffer[:size]), address))

    async def aclose(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            anyio.notify_closing(shared)
            shared.close()
        await anyio.lowlevel.checkpoint()

    def _refresh(self) -> None:
        now_us = time.monotonic_ns() // 1_000
        if now_us < self._interfaces_until_us:
            return
        self._interfaces_until_us = now_us + self._network.interfaces_kept_us
        self._interfaces = tuple(ipv4_interfaces())
        if self._shared is not None:
            self._join(self._shared)

    def _join(self, shared: socket.socket) -> None:
        """Join the multicast group on interfaces that have come up; forget those that went."""
        addresses = [str(interface.ip) for interface in self._interfaces]
        group = socket.inet_aton(self._network.beacon_group)
        for address in addresses:
            if address in self._joined:
                continue
            try:
                member = group + socket.inet_aton(address)
                shared.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            except OSError:
                continue  # down, without multicast, or joined under its other address already
        self._joined = dict.fromkeys(addresses)


async def open_beacon(context: DiscoveryContext) -> BeaconDiscovery:
    """Raises ConfigError when a server cannot share the beacon port: it would hear nobody."""
    network = context.network
    host = (await resolve(network.host, 0))[0][0]
    loopback_only = context.loopback_only or is_loopback(host)
    shared = _open_shared(network.beacon_port, loopback_only) if context.server else None
    discovery = BeaconDiscovery(network, loopback_only=loopback_only, shared=shared)
    discovery.targets()  # joins the group
    return discovery


def ipv4_interfaces() -> Iterable[IPv4Interface]:
    """The IPv4 addresses of this machine with their networks, loopback included."""
    try:
        adapters = list(ifaddr.get_adapters())
    except OSError:
        return []
    return [
        IPv4Interface((ip.ip, ip.network_prefix))
        for adapter in adapters
        for ip in adapter.ips
        if isinstance(ip.ip, str)
    ]


def _open_shared(port: int, loopback_only: bool) -> socket.socket:
    shared = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        shared.setblocking(False)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux" and hasattr(socket, "SO_REUSEPORT"):
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind_shared(shared, port, loopback_only)
    except OSError as error:
        shared.close()
        raise ConfigError(_explain(port, error)) from error
    return shared


def _bind_shared(shared: socket.socket, port: int, loopback_only: bool) -> None:
    if loopback_only and sys.platform == "linux":
        # Only what is sent to this machine's own broadcast address gets in at all.
        shared.bind((LOOPBACK_BROADCAST, port))
    else:
        shared.bind(("", port))


def _explain(port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"the beacon port {port}/udp is held by a program that does not share it: stop it, "
            "or give the servers' addresses instead of looking for them"
        )
    return f"cannot listen on the beacon port {port}/udp: {error.strerror or error}"
