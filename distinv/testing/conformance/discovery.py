"""`DiscoverySuite`: two parties that know nothing of each other meet."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import ClassVar, Self

import anyio
from attrs import define, evolve, field

from distinv.config import Network
from distinv.discovery.api import Discovery, DiscoveryContext, DiscoveryFactory
from distinv.testing.conformance.loops import ATTEMPT_S, ATTEMPTS, DEADLINE_S, LoopSuite
from distinv.transport.api import Datagram, Transport, TransportContext, TransportFactory
from distinv.transport.udp import open_udp

ANNOUNCEMENT_BYTES = 1_000


@define(eq=False)
class _Party:
    """A server or a client: where it announces itself, and what it has heard."""

    transport: Transport
    discovery: Discovery
    heard: list[Datagram] = field(factory=list)
    news: anyio.Event = field(factory=anyio.Event)
    threads: list[int] = field(factory=list)
    """In which each was delivered."""
    home: int = field(factory=threading.get_ident)

    def deliver(self, datagram: Datagram) -> None:
        self.threads.append(threading.get_ident())
        self.heard.append(datagram)
        if self.threads[-1] == self.home:
            self.news.set()

    async def hear(self) -> None:
        """On the port of its own, where announcements to a known address arrive."""
        while True:
            for datagram in await self.transport.receive():
                self.deliver(datagram)

    async def listen(self) -> None:
        await self.discovery.listen(self.deliver)

    def announce(self, body: bytes) -> None:
        self.transport.send([(target, body) for target in self.discovery.targets()])


class DiscoverySuite(LoopSuite):
    """Properties of a discovery, on both event loops.

    Discovery knows destinations and hears announcements; these are made, sealed and sent by
    others, from the server's own port. It may miss and repeat some, so they are sent repeatedly.
    """

    factory: ClassVar[DiscoveryFactory]
    transport: ClassVar[TransportFactory]
    given: ClassVar[bool]

    @classmethod
    def of(
        cls,
        factory: DiscoveryFactory,
        *,
        transport: TransportFactory = open_udp,
        given: bool = False,
    ) -> type[Self]:
        """The suite for the discoveries that `factory` makes.

        `transport` carries the announcements. `given`: the discovery has to be told the servers'
        addresses (`DiscoveryContext.servers`); otherwise it is told none.
        """
        made = {"factory": staticmethod(factory), "transport": staticmethod(transport)}
        return cls._of(**made, given=given)

    async def test_targets_are_addresses_whenever_they_are_asked_for(self) -> None:
        """They are asked for at every announcement, in the middle of a turn."""
        async with self._parties(1) as (party,):
            for _ in range(3):
                targets = party.discovery.targets()
                assert targets, "nobody to announce oneself to"
                for host, port in targets:
                    assert isinstance(host, str), f"the host of a target is text, not {host!r}"
                    assert isinstance(port, int), f"the port of a target is an int, not {port!r}"
                    assert 0 < port < 65_536, f"a target's port is {port}"

    async def test_without_a_key_nothing_leaves_this_machine(self) -> None:
        """`loopback_only` is the promise that a trial on a strange network disturbs nobody."""
        async with self._parties(1) as (party,):
            for host, _ in party.discovery.targets() if self.transport is open_udp else ():
                assert ip_address(host).is_loopback, f"{host} is not on this machine"

    async def test_two_servers_find_each_other(self) -> None:
        """Either may come first. What is heard is what was sent, and where to answer."""
        async with self._parties(2) as (one, two):
            for sender, hearer in ((one, two), (two, one)):
                await _find(sender, hearer, bytes(range(250)) * (ANNOUNCEMENT_BYTES // 250))

    async def test_all_on_one_machine_hear_an_announcement(self) -> None:
        """Several servers share a machine, and with it the port that they listen at."""
        async with self._parties(3) as parties:
            for hearer in parties[1:]:
                await _find(parties[0], hearer, b"to all")

    async def test_a_client_is_heard_and_need_not_listen(self) -> None:
        """A client asks where the servers are, and is answered directly."""
        async with self._parties(1, clients=1) as (server, client):
            await _find(client, server, b"who is there?")

    async def test_announcements_are_delivered_in_the_event_loop(self) -> None:
        """`deliver` touches the server's inbox, which belongs to one thread."""
        async with self._parties(2) as (one, two):
            await _find(one, two, b"here")
            assert set(two.threads) == {two.home}, "delivered by another thread"

    async def test_listening_ends_when_it_is_cancelled(self) -> None:
        """A server stops by cancelling; and who listens again hears again."""
        async with self._parties(2, listening=False) as (one, two):
            for body in (b"once", b"again"):
                with anyio.move_on_after(DEADLINE_S) as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(two.listen)
                        await anyio.wait_all_tasks_blocked()
                        await _find(one, two, body)
                        tasks.cancel_scope.cancel()
                assert not scope.cancel_called, "listen() cannot be cancelled"

    async def test_closing_twice_does_no_harm(self) -> None:
        """Whoever cleans up after an error may have cleaned up before."""
        async with self._parties(1, listening=False) as (party,):
            await party.discovery.aclose()
            await party.discovery.aclose()

    async def test_another_may_open_where_one_was_closed(self) -> None:
        """A server that is started again listens where it did before."""
        network = self._network()
        for _ in range(3):
            async with self._parties(2, network=network) as (one, two):
                await _find(one, two, b"here")

    # --- scenes -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _parties(
        self,
        servers: int,
        *,
        clients: int = 0,
        network: Network | None = None,
        listening: bool = True,
    ) -> AsyncIterator[Sequence[_Party]]:
        """All hear what comes to the port of their own, and listen to what their discovery hears.

        Without `listening` only the former.
        """
        network = network or self._network()
        async with AsyncExitStack() as stack:
            transports = []
            for number in range(servers + clients):
                context = TransportContext(network, server=number < servers)
                transports.append(await self.transport(context))
                stack.push_async_callback(_close, transports[-1])
            known = tuple(transport.address for transport in transports[:servers])
            parties = []
            for number, transport in enumerate(transports):
                made = await self.factory(
                    DiscoveryContext(
                        network=network,
                        servers=known if self.given else (),
                        loopback_only=True,
                        server=number < servers,
                    )
                )
                stack.push_async_callback(_close, made)
                parties.append(_Party(transport, made))
            failure: Exception | None = None
            async with anyio.create_task_group() as tasks:
                for party in parties:
                    tasks.start_soon(party.hear)
                    if listening:
                        tasks.start_soon(party.listen)
                await anyio.wait_all_tasks_blocked()
                try:
                    yield parties
                except Exception as error:
                    failure = error  # is told as it is, and in no group
                tasks.cancel_scope.cancel()
            if failure is not None:
                raise failure

    def _network(self) -> Network:
        """With a port for announcements that nobody else on this machine uses."""
        return evolve(Network(port=0), beacon_port=_free_port())


async def _close(resource: Transport | Discovery) -> None:
    with anyio.CancelScope(shield=True):
        await resource.aclose()


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _find(sender: _Party, hearer: _Party, body: bytes) -> None:
    """Announce until it is heard."""
    expected = (body, sender.transport.address)
    for _ in range(ATTEMPTS):
        hearer.news = anyio.Event()
        sender.announce(body)
        with anyio.move_on_after(ATTEMPT_S):
            while expected not in hearer.heard:
                await hearer.news.wait()
                hearer.news = anyio.Event()
            return
    others = [(data[:20], source) for data, source in hearer.heard[:3]]
    raise AssertionError(
        f"announced {ATTEMPTS} times to {list(sender.discovery.targets())}, and not heard from "
        f"{sender.transport.address}; heard was {others}"
    )
