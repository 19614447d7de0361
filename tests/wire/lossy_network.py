"""A network in virtual time: endpoints exchange datagrams that are lost, doubled and delayed.

Everything follows from one seed. `Host` plays the driver: it hands in what arrives, collects
what comes out, and flushes after every step, as the runtime does after every turn.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from attrs import define, field, frozen

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint, EndpointEvent, Incoming, LinkReset, Notice
from distinv.wire.frame import SPEAKS
from distinv.wire.seal import PlainSeal, Seal

SECOND = 1_000_000


@frozen(kw_only=True)
class Faults:
    loss_percent: int = 0
    duplicate_percent: int = 0
    delay_us: tuple[int, int] = (100, 300)
    """The shortest and the longest; unequal delays reorder."""


CLEAN = Faults()
ROUGH = Faults(loss_percent=30, duplicate_percent=10, delay_us=(100, 20_000))


class Network:
    def __init__(self, seed: int, faults: Faults = CLEAN) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.now = 1
        self.hosts: dict[Address, Host] = {}
        self.payload_bytes = 0
        self.recorded: list[tuple[Address, Address, bytes]] | None = None
        """(source, destination, datagram) of everything sent, once it is a list."""
        self.intercept: Callable[[Address, Address, bytes], bool] = lambda *_: True
        """False loses a datagram."""
        self._queue: list[tuple[int, int, Address, Address | None, bytes]] = []
        self._pushed = 0

    def host(
        self,
        id: int,
        *,
        port: int | None = None,
        boot: int | None = None,
        seal: Seal | None = None,
        payload_bytes: int = 1_200,
        limits: Limits | None = None,
        timing: Timing | None = None,
        cluster_id: int = 0,
        speaks: tuple[int, int] = SPEAKS,
    ) -> Host:
        """A new process; it takes the place of an earlier one on the same port."""
        self.payload_bytes = payload_bytes
        endpoint = Endpoint(
            self_id=NodeId(id),
            boot=boot or self.random.randrange(1, 1 << 64),
            seal=seal or PlainSeal(),
            random=Random(self.random.random()),
            timing=timing or Timing(),
            limits=limits or Limits(),
            speaks=speaks,
            payload_bytes=payload_bytes,
            cluster_id=cluster_id,
        )
        address = ("10.0.0.1", port or id)
        host = self.hosts[address] = Host(self, NodeId(id), address, endpoint)
        return host

    def send(self, source: Address, destination: Address, data: bytes) -> None:
        assert len(data) <= self.payload_bytes
        if self.recorded is not None:
            self.recorded.append((source, destination, data))
        if not self.intercept(source, destination, data):
            return
        faults, random = self.faults, self.random
        copies = 1 + (random.randrange(100) < faults.duplicate_percent)
        for _ in range(copies):
            if random.randrange(100) >= faults.loss_percent:
                self.put(self.now + random.randint(*faults.delay_us), source, destination, data)

    def put(self, at: int, source: Address, destination: Address, data: bytes) -> None:
        self._push(at, destination, source, data)

    def _push(self, at: int, where: Address, source: Address | None, data: bytes) -> None:
        self._pushed += 1
        heapq.heappush(self._queue, (at, self._pushed, where, source, data))

    def wake(self, at: int, where: Address) -> None:
        self._push(at, where, None, b"")

    def run(self, duration_us: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds, False when it never did."""
        end = self.now + duration_us
        while self._queue and self._queue[0][0] <= end:
            if until is not None and until():
                return True
            self.now, _, where, source, data = heapq.heappop(self._queue)
            host = self.hosts.get(where)
            if host is None:
                continue
            if source is None:
                host.on_wake()
            else:
                host.on_datagram(data, source)
        if until is not None and until():
            return True
        self.now = end
        return until is None


@define(eq=False)
class Host:
    network: Network
    id: NodeId
    address: Address
    endpoint: Endpoint
    incoming: list[Incoming] = field(factory=list)
    bodies: list[bytes] = field(factory=list)
    """What came from processes that proved to be there."""
    events: list[EndpointEvent] = field(factory=list)
    wake_at: int | None = None

    def greet(self, other: Host) -> None:
        self.endpoint.connect(other.id, other.address, self.network.now)
        self.settle()

    def send(self, other: Host, *bodies: bytes) -> bool:
        taken = [self.endpoint.send(other.id, body, self.network.now) for body in bodies]
        self.settle()
        return all(taken)

    def send_now(self, other: Host, body: bytes) -> None:
        self.endpoint.send_now(other.id, body, self.network.now)
        self.settle()

    def send_to(self, other: Host, body: bytes) -> None:
        self.endpoint.send_to(other.address, body, self.network.now)
        self.settle()

    def on_datagram(self, data: bytes, source: Address) -> None:
        incoming = self.endpoint.receive_untrusted(data, source, self.network.now)
        self.incoming += incoming
        self.bodies += [message.body for message in incoming if message.fresh]
        self.settle()

    def on_wake(self) -> None:
        at = self.endpoint.deadline()
        if at is not None and at <= self.network.now:
            self.endpoint.on_deadline(self.network.now)
        self.wake_at = None
        self.settle()

    def resets(self) -> list[str]:
        """The reasons of the link resets so far."""
        return [event.reason for event in self.events if isinstance(event, LinkReset)]

    def notices(self) -> list[str]:
        return [event.kind for event in self.events if isinstance(event, Notice)]

    def settle(self) -> None:
        """The end of a turn: collect events, send what is ready, set the alarm."""
        network = self.network
        for destination, data in self.endpoint.flush(network.now):
            network.send(self.address, destination, data)
        self.events += self.endpoint.take_events()
        at = self.endpoint.deadline()
        if at is not None and (self.wake_at is None or at < self.wake_at):
            self.wake_at = max(at, network.now + 1)
            network.wake(self.wake_at, self.address)

    def take_bodies(self) -> list[bytes]:
        bodies, self.bodies = self.bodies, []
        self.incoming.clear()
        return bodies


def pair(network: Network, **settings: object) -> tuple[Host, Host]:
    """Two hosts that have met."""
    a = network.host(1, **settings)  # type: ignore[arg-type]
    b = network.host(2, **settings)  # type: ignore[arg-type]
    for _ in range(60):
        a.greet(b)
        b.greet(a)
        if network.run(SECOND, lambda: both_connected(a, b)):
            network.run(SECOND // 20)  # until the last greeting has arrived
            return a, b
    raise AssertionError("they never met")


def both_connected(a: Host, b: Host) -> bool:
    return a.endpoint.connected(b.id) and b.endpoint.connected(a.id)
