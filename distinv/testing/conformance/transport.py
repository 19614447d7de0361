"""`TransportSuite`: datagrams between addresses, as the runtime and the client expect them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import ClassVar, Self

import anyio
import pytest

from distinv.config import Limits, Network
from distinv.errors import ConfigError
from distinv.testing.conformance.loops import ATTEMPT_S, ATTEMPTS, DEADLINE_S, ENDED, LoopSuite
from distinv.transport.api import (
    Address,
    Datagram,
    Transport,
    TransportContext,
    TransportFactory,
)

ANY_PORT = Network(port=0)
BATCH = Limits().turn_datagrams
PAYLOAD_BYTES_MIN = 576
"""The least that the links are tested with."""
NOWHERE: Sequence[Address] = (
    ("no.such.host.invalid", 1),
    ("127.0.0.1", 0),
    ("127.0.0.1", 70_000),
    ("127.0.0.1", -1),
    ("", 0),
    ("not an address", 4747),
    ("203.0.113.77", 9),
)
"""Addresses come from the network: anybody may name such."""


class TransportSuite(LoopSuite):
    """Properties of a transport, on both event loops.

    It may lose, repeat and reorder datagrams, so whatever is to arrive is sent until it does.
    It may not change one, claim another sender, raise for what a network does, or keep a server
    from stopping.
    """

    factory: ClassVar[TransportFactory]

    @classmethod
    def of(cls, factory: TransportFactory) -> type[Self]:
        """The suite for the transports that `factory` makes, on this machine's loopback."""
        return cls._of(factory=staticmethod(factory))

    # --- addresses ----------------------------------------------------------------------------

    async def test_each_has_an_address_of_its_own(self) -> None:
        """It is what a server announces, and how others tell it from its neighbour."""
        async with self._open(3) as transports:
            addresses = [transport.address for transport in transports]
            for host, port in addresses:
                assert isinstance(host, str), f"the host of an address is text, not {host!r}"
                assert 0 < port < 65_536, f"port 0 was asked for, and {port} is where it is"
            assert len(set(addresses)) == 3, f"two have the same address: {addresses}"

    async def test_an_explicit_port_that_is_in_use_is_an_error(self) -> None:
        """Whoever names a port wants that one: another would be found by nobody."""
        async with self._open(1) as (first,):
            wanted = Network(port=first.address[1], port_explicit=True)
            with pytest.raises(ConfigError) as raised:
                await self._close(await self.factory(TransportContext(wanted, server=True)))
            assert "\n" not in str(raised.value), "an error for people is one line"

    async def test_the_default_port_gives_way(self) -> None:
        """The second server on a machine takes any port; a client always does."""
        async with self._open(1) as (first,):
            network = Network(port=first.address[1])
            for server in (True, False):
                other = await self.factory(TransportContext(network, server=server))
                taken = other.address
                await other.aclose()
                assert taken != first.address, f"two transports at {taken}"

    async def test_a_closed_one_leaves_its_port(self) -> None:
        """A server that is started again wants to be where it was."""
        async with self._open(1) as (first,):
            wanted = Network(port=first.address[1], port_explicit=True)
        again = await self.factory(TransportContext(wanted, server=True))
        address = again.address
        await again.aclose()
        assert address == first.address, f"{first.address} was asked for, and {address} taken"

    # --- datagrams ----------------------------------------------------------------------------

    @pytest.mark.parametrize("share", [0.0, 0.04, 0.5, 1.0])
    async def test_a_datagram_arrives_intact_and_from_its_sender(self, share: float) -> None:
        """Whatever its bytes, up to `payload_bytes`; answers go to where it came from."""
        async with self._open(2) as (one, two):
            size = max(1, int(one.payload_bytes * share))
            assert one.payload_bytes >= PAYLOAD_BYTES_MIN, (
                f"a payload of {one.payload_bytes} bytes: links need {PAYLOAD_BYTES_MIN}"
            )
            data = bytes(number % 256 for number in range(size))
            source = await self._carry(one, two, data)
            assert source == one.address, f"it came from {one.address}, and seems from {source}"
            answered = await self._carry(two, one, data[::-1], to=source)
            assert answered == two.address, f"the answer seems to come from {answered}"

    async def test_three_hear_what_is_meant_for_them(self) -> None:
        """One call sends to many; what is for one is for nobody else."""
        async with self._open(3) as (one, two, three):
            heard: dict[Address, set[bytes]] = {two.address: set(), three.address: set()}
            for _ in range(ATTEMPTS):
                one.send([(two.address, b"for two"), (three.address, b"for three")])
                for each in (two, three):
                    with anyio.move_on_after(ATTEMPT_S):
                        heard[each.address] |= {data for data, _ in await each.receive()}
                if all(heard.values()):
                    break
            for each, meant in ((two, b"for two"), (three, b"for three")):
                found = sorted(heard[each.address])
                assert found == [meant], f"{each.address} heard {found}, and {meant!r} was for it"

    async def test_a_burst_is_received_in_batches_of_bounded_size(self) -> None:
        """A turn takes so many datagrams and no more: meanwhile nothing else happens.

        Some may be lost on the way, but none is invented.
        """
        count = 4 * BATCH
        sent = [b"%d" % number for number in range(count)]
        async with self._open(2) as (one, two):
            arrived: set[bytes] = set()
            for _ in range(ATTEMPTS):
                one.send((two.address, data) for data in sent)  # any iterable
                while True:
                    batch: list[Datagram] = []
                    with anyio.move_on_after(ATTEMPT_S):
                        batch = await two.receive()
                    if not batch:
                        break
                    assert len(batch) <= BATCH, f"{len(batch)} datagrams at once, not {BATCH}"
                    arrived |= {data for data, _ in batch}
                if arrived >= set(sent):
                    break
            assert arrived <= set(sent), f"{min(arrived - set(sent))!r} was never sent"
            assert arrived == set(sent), f"{count - len(arrived)} of {count} never arrive"

    async def test_receive_returns_at_least_one(self) -> None:
        """Whoever is woken for nothing spins."""
        async with self._open(2) as (one, two):
            await self._carry(one, two, b"once")
            empty = 0
            with anyio.move_on_after(ATTEMPT_S):
                while True:
                    empty += not await two.receive()
                    assert empty == 0, "receive() returned without a datagram"

    @pytest.mark.parametrize("target", NOWHERE)
    async def test_what_cannot_be_sent_is_lost_and_nothing_is_raised(self, target: Address) -> None:
        """`send` is called in the middle of a turn, for many peers: one must not spoil it."""
        async with self._open(2) as (one, two):
            one.send([(target, b"to nobody"), (two.address, b"after that")])
            one.send([(two.address, b"x" * 70_000), (two.address, b""), (target, b"")])
            await self._carry(one, two, b"still there")

    # --- waiting ------------------------------------------------------------------------------

    async def test_a_wait_that_is_cancelled_loses_nothing(self) -> None:
        """The runtime waits with time-outs; what arrives afterwards is for the next one."""
        async with self._open(2) as (one, two):
            with anyio.move_on_after(0.01) as scope:
                await two.receive()
            assert scope.cancelled_caught, "receive() returned though nothing was sent"
            await self._carry(one, two, b"later")

    async def test_what_is_there_survives_a_cancelled_wait(self) -> None:
        """A datagram that has been taken off the queue has to be handed out."""
        async with self._open(2) as (one, two):
            await self._carry(one, two, b"first")  # by now the way is clear
            for _ in range(ATTEMPTS):
                batch: list[Datagram] = []
                one.send([(two.address, b"second")])
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    batch = await two.receive()
                with anyio.move_on_after(ATTEMPT_S):
                    while not batch:
                        batch = [each for each in await two.receive() if each[0] == b"second"]
                if batch:
                    return
            raise AssertionError(f"{ATTEMPTS} times a cancelled receive() lost what was there")

    async def test_closing_ends_the_wait(self) -> None:
        """`aclose` may be called while a task receives: it ends in anyio.ClosedResourceError."""
        async with self._open(1) as (transport,):
            ended: list[BaseException | None] = []

            async def wait() -> None:
                try:
                    await transport.receive()
                except Exception as error:
                    ended.append(error)
                else:
                    ended.append(None)

            with anyio.move_on_after(DEADLINE_S):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(wait)
                    await anyio.wait_all_tasks_blocked()
                    await transport.aclose()
            assert ended, "receive() waits for ever on a closed transport"
            assert isinstance(ended[0], ENDED), f"receive() ended in {ended[0]!r}"

    async def test_a_closed_one_stays_closed(self) -> None:
        """What is still sent is lost, receiving is an error, closing again does no harm."""
        async with self._open(2) as (one, two):
            await one.aclose()
            await one.aclose()
            one.send([(two.address, b"too late")])
            with pytest.raises(ENDED), anyio.fail_after(DEADLINE_S):
                await one.receive()

    # --- probing ------------------------------------------------------------------------------

    async def test_a_probe_never_takes_the_living_for_dead(self) -> None:
        """A leader that is "gone" is replaced at once: a wrong answer costs an election."""
        async with self._open(2) as (one, two):
            for _ in range(3):
                with anyio.fail_after(DEADLINE_S):
                    gone = await one.probe(two.address)
                assert gone is False, f"somebody listens at {two.address}, and it says {gone!r}"

    async def test_a_probe_of_nobody_answers(self) -> None:
        """True or False, but no error, and in time; then everything works as before."""
        async with self._open(3) as (one, two, three):
            await three.aclose()
            for target in (three.address, *NOWHERE):
                with anyio.fail_after(DEADLINE_S):
                    gone = await one.probe(target)
                assert gone in (True, False), f"a probe of {target} answers {gone!r}"
            await self._carry(one, two, b"still there")

    # --- scenes -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open(self, count: int) -> AsyncIterator[Sequence[Transport]]:
        async with AsyncExitStack() as stack:
            transports: list[Transport] = []
            for _ in range(count):
                transport = await self.factory(TransportContext(ANY_PORT, server=True))
                stack.push_async_callback(self._close, transport)
                transports.append(transport)
            yield transports

    async def _close(self, transport: Transport) -> None:
        with anyio.CancelScope(shield=True):
            await transport.aclose()

    async def _carry(
        self, source: Transport, target: Transport, data: bytes, to: Address | None = None
    ) -> Address:
        """Send until it arrives; where it seems to come from."""
        for _ in range(ATTEMPTS):
            source.send([(to or target.address, data)])
            with anyio.move_on_after(ATTEMPT_S):
                while True:
                    found = _find(data, await target.receive())
                    if found is not None:
                        return found
        raise AssertionError(
            f"sent {ATTEMPTS} times, and {len(data)} bytes to {to or target.address} never arrive"
        )


def _find(data: bytes, batch: Iterable[Datagram]) -> Address | None:
    """Who sent these bytes, if they are among them."""
    for heard, source in batch:
        if heard == data:
            return source
    return None
