"""Datagrams over UDP and IPv4, on a raw socket that is drained in batches.

anyio's own UDP socket keeps a hundred datagrams and drops the oldest in silence; here the
kernel's buffer, which is large and counted, is the only queue. Nothing in this file looks into
a datagram.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address

import anyio
import anyio.lowlevel
from attrs import define

from distinv.config import Limits, Network
from distinv.errors import ConfigError
from distinv.transport.api import Address, Datagram, TransportContext
from distinv.transport.resolve import resolve

_DATAGRAM_BYTES_MAX = 65_535
_BATCH = Limits().turn_datagrams
_PROBE = b"\0"
"""No datagram of distinv is this short: a receiver drops it without further thought."""
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_NOT_AN_ADDRESS = (OSError, OverflowError, TypeError, ValueError)
"""What the socket module raises for hosts and ports that are none, besides what a network does."""


@define
class UdpStats:
    """Datagrams since the start."""

    sent: int = 0
    received: int = 0
    dropped_full: int = 0
    """Not sent: the kernel's send buffer was full."""
    dropped_failed: int = 0
    """Not sent: no such host or network, too long, not permitted."""


class UdpTransport:
    """One bound, non-blocking socket. Made by `open_udp`."""

    def __init__(self, bound: socket.socket, network: Network) -> None:
        self._socket = bound
        self._network = network
        self._address: Address = bound.getsockname()
        self._buffer = bytearray(_DATAGRAM_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._closed = False
        self.stats = UdpStats()

    @property
    def address(self) -> Address:
        return self._address

    @property
    def payload_bytes(self) -> int:
        if is_loopback(self._address[0]):
            return self._network.payload_loopback_bytes
        return self._network.payload_bytes

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        """Hand the datagrams to the kernel. What it does not take at once is lost and counted."""
        stats = self.stats
        for (host, port), data in datagrams:
            try:
                # A name would be looked up, which blocks; and addresses come from the network.
                socket.inet_pton(socket.AF_INET, host)
                self._socket.sendto(data, (host, port))
                stats.sent += 1
            except BlockingIOError:
                stats.dropped_full += 1
            except _NOT_AN_ADDRESS:
                stats.dropped_failed += 1

    async def receive(self) -> list[Datagram]:
        """See `Transport.receive`. Raises anyio.ClosedResourceError after `aclose`."""
        await anyio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            batch = self._drain()
            if batch:
                self.stats.received += len(batch)
                return batch
            await anyio.wait_readable(self._socket)

    def _drain(self) -> list[Datagram]:
        # Reading into one buffer and copying what came costs a tenth of recvfrom() for large
        # datagrams: that one allocates the maximum for each and gives most of it back.
        batch: list[Datagram] = []
        for _ in range(_BATCH):
            try:
                size, address = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error about something sent before; it is consumed by this
            batch.append((bytes(self._view[:size]), address))
        return batch

    async def probe(self, address: Address) -> bool:
        """Ask the kernel on the other side; takes at most `probe_tries` x `probe_wait_us`.

        A connected socket is told when the host answers "port unreachable": then no process
        has that port. Silence says nothing.
        """
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connected:
                connected.setblocking(False)
                socket.inet_pton(socket.AF_INET, address[0])
                connected.connect(address)
                for _ in range(self._network.probe_tries):
                    connected.send(_PROBE)
                    with anyio.move_on_after(self._network.probe_wait_us / 1_000_000):
                        await anyio.wait_readable(connected)
                        connected.recv(1)
                        return False
        except ConnectionRefusedError:
            return True
        except _NOT_AN_ADDRESS:
            return False
        return False

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._socket)
            self._socket.close()
        await anyio.lowlevel.checkpoint()


async def open_udp(context: TransportContext) -> UdpTransport:
    """Bind a socket. Raises ConfigError when the host or an explicitly given port cannot be had.

    A server without an explicit port takes the default one, or any when another server has it;
    a client takes any.
    """
    network = context.network
    host = (await resolve(network.host, network.port))[0][0]
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        _set_buffers(bound, network.receive_buffer_bytes)
        _bind(bound, host, context)
    except BaseException:
        bound.close()
        raise
    return UdpTransport(bound, network)


def is_loopback(host: str) -> bool:
    """Whether a numeric IPv4 host never leaves this machine."""
    return IPv4Address(host).is_loopback


def _bind(bound: socket.socket, host: str, context: TransportContext) -> None:
    network = context.network
    port = network.port if context.server or network.port_explicit else 0
    try:
        bound.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE and not network.port_explicit:
            bound.bind((host, 0))
            return
        raise ConfigError(_explain(host, port, error)) from error


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port}/udp of {host} is in use: stop the program that has it, give another "
            "port, or give none and a free one is taken"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {host}: give one that it has, or 0.0.0.0 for all"
    return f"cannot bind {host}:{port}/udp: {error.strerror or error}"


def _set_buffers(bound: socket.socket, size_bytes: int) -> None:
    """As large as the kernel lets this process have it; a smaller buffer only loses sooner."""
    for forced, plain in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        options = (forced, plain) if sys.platform == "linux" else (plain,)
        for option in options:
            try:
                bound.setsockopt(socket.SOL_SOCKET, option, size_bytes)
                break
            except OSError:
                continue
