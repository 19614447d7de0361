"""A calm little network in virtual time: servers, clients, and somebody who is neither.

Nothing is lost and nothing fails here by itself: whatever goes wrong is the fuzzer's doing. The
servers are the real engine with the store and the storage in memory, the clients the real session.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from typing import Any

from attrs import evolve, field, frozen

from distinv import config
from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.config import Config
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import NodeId, SnapshotHead
from distinv.errors import StorageError
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import StateMachine
from distinv.inventory.snapshot import Snapshot
from distinv.multicast.fanout import fanout
from distinv.runtime.reconcile import reconcile
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.engine import Engine
from distinv.server.errands import Errand
from distinv.server.settings import Settings
from distinv.storage.memory import MemoryStorage
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint, Incoming
from distinv.wire.seal import KeySeal, PlainSeal, Seal

CLUSTER = "shop"
BROADCAST: Address = ("255.255.255.255", 4746)
EPOCH_US = 1_700_000_000_000_000
"""What the wall clock says when virtual time begins."""
LATENCY_US = 100
SYNC_US = 150
APPLY_PER_TURN = 32
IDS_MAX = 1 << 62

ELECTIONS: dict[str, ElectionFactory] = {"bully": Bully, "ring": Ring}


def tight() -> Config:
    """Bounds so small that a few thousand datagrams reach them."""
    base = config.test()
    limits = evolve(
        base.limits,
        peers_max=64,
        sessions_max=128,
        servers_max=8,
        pending_commands=256,
        pending_reads=256,
        births_refused=8,
        notices_max=32,
        keys_max=500,
        session_results_bytes=20_000,
        message_bytes=1 << 20,
        link_queue_bytes=1 << 20,
        link_reorder_bytes=256 << 10,
        link_window_bytes=64 << 10,
        log_cache_bytes=1 << 20,
        levels_cached=1_000,
        locations_max=100,
        log_keep_entries=8,
        snapshot_piece_bytes=16 << 10,
        snapshot_bytes_max=1 << 20,
        snapshot_takers=2,
    )
    timing = evolve(base.timing, compact_us=200_000, snapshot_rest_us=2_000_000)
    return evolve(base, limits=limits, timing=timing)


class Net:
    """Time, and who lives where."""

    def __init__(self, seed: int, *, sealed: bool, settings: Config | None = None) -> None:
        self.random = Random(f"net {seed}")
        self.now = 1_000
        self.config = settings or tight()
        key = self.random.randbytes(32)
        self.seal: Callable[[], Seal] = (lambda: KeySeal(key)) if sealed else PlainSeal
        self.hosts: dict[Address, Host] = {}
        self.recorded: list[bytes] | None = None
        """Every datagram sent, once it is a list."""
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._queue, (time, self._count, call, arguments))

    def run(self, duration_us: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass, up to `done`; True when done."""
        end = self.now + duration_us
        while self._queue and self._queue[0][0] <= end:
            at, _, call, arguments = heappop(self._queue)
            self.now = max(self.now, at)
            call(*arguments)
            if done is not None and done():
                return True
        self.now = end
        return done is not None and done()

    def send(self, source: Address, target: Address, data: bytes) -> None:
        if self.recorded is not None:
            self.recorded.append(data)
        if target != BROADCAST:
            self._send_one(source, target, data)
            return
        for address in self.hosts:
            if address != source:
                self._send_one(source, address, data)

    def _send_one(self, source: Address, target: Address, data: bytes) -> None:
        if target in self.hosts:
            self.at(self.now + LATENCY_US, self._arrive, source, target, data)

    def _arrive(self, source: Address, target: Address, data: bytes) -> None:
        host = self.hosts.get(target)
        if host is not None:
            host.inbox.append((data, source))
            host.wake(self.now)

    def new_id(self) -> NodeId:
        return NodeId(self.random.randrange(1, IDS_MAX))

    def endpoint(self, node: NodeId) -> Endpoint:
        return Endpoint(
            self_id=node,
            boot=self.new_id(),
            seal=self.seal(),
            random=Random(self.random.getrandbits(64)),
            timing=self.config.timing,
            limits=self.config.limits,
            payload_bytes=1_200,
        )


class Host(ABC):
    """Something with an address that takes turns."""

    def __init__(self, net: Net, address: Address) -> None:
        self.net = net
        self.address = address
        self.inbox: list[tuple[bytes, Address]] = []
        self._turn_at: int | None = None
        net.hosts[address] = self

    def wake(self, at: int) -> None:
        """Take a turn at `at`, unless one comes earlier."""
        at = max(at, self.net.now)
        if self._turn_at is None or at < self._turn_at:
            self._turn_at = at
            self.net.at(at, self._maybe_turn, at)

    def _maybe_turn(self, at: int) -> None:
        if self._turn_at == at and self.present():
            self._turn_at = None
            self.turn()

    @abstractmethod
    def turn(self) -> None:
        """Hear what is in the inbox, do what is due, and say when to be woken again."""

    def present(self) -> bool:
        """Whether it has not left, nor another life taken its place."""
        return self.net.hosts.get(self.address) is self

    def leave(self) -> None:
        """Nobody lives here any more."""
        if self.present():
            del self.net.hosts[self.address]


@frozen
class Disk:
    """What outlives a server."""

    storage: MemoryStorage = field(factory=MemoryStorage)
    store: Snapshot | None = None
    """Of the last life."""


class Server(Host):
    """One life of a server; its `disk` outlives it."""

    def __init__(
        self,
        net: Net,
        number: int,
        *,
        expect: int,
        election: str = "bully",
        disk: Disk | None = None,
    ) -> None:
        super().__init__(net, (f"10.0.0.{number + 1}", 4747))
        self.number = number
        self.expect = expect
        self.election = election
        disk = disk or Disk()
        self.storage = disk.storage
        self.depot = MemoryDepot(net.config.limits)
        machine = self._open(disk.store)
        recovered, _ = reconcile(machine, self.storage.recover(), None, "memory")
        self.id = recovered.node if recovered.node is not None else net.new_id()
        endpoint = net.endpoint(self.id)
        self.boot = endpoint._boot
        random = Random(f"server {number} {self.boot}")
        self._staged: list[tuple[int, int]] = []
        """(engine's ticket, storage's ticket) of writes not durable yet."""
        self._persisted = 0
        self.engine = Engine(
            self_id=self.id,
            settings=Settings(CLUSTER, f"server-{number}", expect, election),
            config=net.config,
            recovered=recovered,
            machine=machine,
            check_command=decode_command_untrusted,
            read_log=self.storage.read,
            endpoint=endpoint,
            election=ELECTIONS[election],
            multicast=fanout,
            targets=lambda: [BROADCAST],
            random=random,
            now=net.now,
            make_snapshot=self.depot.maker,
            pieces=self.depot,
        )
        self.lines = 0
        """Log lines written so far."""
        self.wake(net.now)

    @property
    def machine(self) -> StateMachine:
        """Another one after a snapshot was installed."""
        machine = self.engine.machine
        assert isinstance(machine, StateMachine)
        return machine

    def _open(self, store: Snapshot | None) -> StateMachine:
        limits = self.net.config.limits
        if store is None:
            return StateMachine(":memory:", limits)
        data = store.read(0, store.head.size_bytes)
        return StateMachine.from_snapshot(data, store.head, limits)

    def turn(self) -> None:
        engine, net = self.engine, self.net
        engine.node.clocks.own_offset_us = EPOCH_US
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            engine.receive(data, source, net.now)
        if self._persisted:
            ticket, self._persisted = self._persisted, 0
            engine.persisted(ticket, net.now)
        if (due := engine.deadline()) is not None and due <= net.now:
            engine.on_deadline(net.now)
        self._end_turn()
        for _ in range(APPLY_PER_TURN):
            if not engine.apply_waiting:
                break
            engine.apply_more(net.now)
        else:
            self.wake(net.now + 50)
        self._end_turn()
        engine.node.check()
        due = engine.deadline()
        if due is not None:
            self.wake(max(due, net.now + 20))

    def _end_turn(self) -> None:
        net, turn = self.net, self.engine.end_turn(self.net.now)
        self.lines += len(turn.lines)
        if turn.write is not None:
            stored = self.storage.stage(turn.write.records)
            self._staged.append((turn.write.ticket, stored))
            net.at(net.now + SYNC_US, self._synced)
        for target, data in turn.datagrams:
            net.send(self.address, target, data)
        for errand in turn.errands:
            self._run(errand)
        if turn.snapshot is not None:
            self._install(turn.snapshot)
        for peer, address in turn.probes:
            if address not in net.hosts:
                net.at(net.now + 300, self._refused, peer)

    def _run(self, errand: Errand) -> None:
        try:
            result = errand.run()
        except StorageError:
            if errand.fatal:
                raise
            errand.fail()
        else:
            errand.finish(result, self.net.now)
        self.wake(self.net.now + 10)

    def _install(self, head: SnapshotHead) -> None:
        """As the driver does."""
        engine, depot = self.engine, self.depot
        try:
            depot.look(head)
        except StorageError:
            depot.discard()
            engine.refused_snapshot(self.net.now)
            return
        if engine.wants(head):
            engine.machine.close()
            engine.installed(depot.install(head), head, self.net.now)
        else:
            depot.discard()
            engine.not_installed()

    def _synced(self) -> None:
        if self._staged and self.present():
            ticket, stored = self._staged[-1]
            self._staged.clear()
            self.storage.make_durable(stored)
            self._persisted = ticket
            self.wake(self.net.now)

    def _refused(self, peer: NodeId) -> None:
        if self.present():
            self.engine.refused(peer, self.net.now)
            self.wake(self.net.now)

    def leave(self) -> None:
        super().leave()
        self.engine.machine.close()

    def crash(self) -> Disk:
        """Power off. What was not synced is gone; the rest is for the next life."""
        machine = self.machine
        store = machine.snapshot_writer(Path())() if machine.position.index else None
        self.leave()
        self.storage.crash(0, torn=False)
        return Disk(self.storage, store)


class Client(Host):
    """The real client session; calls are submitted on `session`."""

    def __init__(self, net: Net, number: int) -> None:
        super().__init__(net, (f"10.0.1.{number % 250 + 1}", 6_000 + number // 250))
        endpoint = net.endpoint(net.new_id())
        self.id, self.boot = endpoint._id, endpoint._boot
        self.session = ClientSession(
            cluster_name=CLUSTER,
            endpoint=endpoint,
            timing=net.config.timing,
            limits=net.config.limits,
            random=Random(net.random.getrandbits(64)),
            name=f"client-{number}",
            targets=lambda: [BROADCAST],
        )
        self.ended: list[Completion] = []
        self.wake(net.now)

    def turn(self) -> None:
        session, net = self.session, self.net
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            session.receive(data, source, net.now)
        if session.deadline() <= net.now:
            session.on_deadline(net.now)
        for target, data in session.flush(net.now):
            net.send(self.address, target, data)
        for address in session.probes():
            if address not in net.hosts:
                net.at(net.now + 300, self._refused, address)
        self.ended += session.take_completions()
        self.wake(max(session.deadline(), net.now + 20))

    def _refused(self, address: Address) -> None:
        if self.present():
            self.session.on_refused(address, self.net.now)
            self.wake(self.net.now)


class Intruder(Host):
    """Somebody who has the key (if there is one), knows the protocol, and sends what it likes."""

    def __init__(self, net: Net, address: Address, node: NodeId | None = None) -> None:
        super().__init__(net, address)
        self.endpoint = net.endpoint(node or net.new_id())
        self.id = self.endpoint._id
        self.heard: list[Incoming] = []
        self.wake(net.now)

    def turn(self) -> None:
        net, endpoint = self.net, self.endpoint
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            self.heard += endpoint.receive_untrusted(data, source, net.now)
        del self.heard[:-50]
        if (due := endpoint.deadline()) is not None and due <= net.now:
            endpoint.on_deadline(net.now)
        endpoint.take_events()
        for target, data in endpoint.flush(net.now):
            net.send(self.address, target, data)
        due = endpoint.deadline()
        if due is not None:
            self.wake(max(due, net.now + 20))

    def meet(self, node: NodeId, address: Address, theirs: Endpoint) -> bool:
        """Prove to be there; from then on what is forged counts as fresh."""
        for _ in range(8):
            self.endpoint.connect(node, address, self.net.now)
            self.wake(self.net.now)
            if self.net.run(300_000, lambda: self.knows(node) and theirs.connected(self.id)):
                return True
        return False

    def knows(self, node: NodeId) -> bool:
        return self.endpoint.connected(node)

    def forge(self, boot: int, chunks: bytes) -> bytes:
        """A datagram of this process for process `boot`, rightly framed and sealed."""
        return self.endpoint._datagram(boot, chunks)


def born(net: Net, servers: int, election: str) -> list[Server]:
    """A cluster with a leader that serves."""
    found = [Server(net, number, expect=servers, election=election) for number in range(servers)]
    if not net.run(30_000_000, lambda: any(each.engine.node.serving for each in found)):
        raise AssertionError("a calm cluster was not born")
    net.run(100_000)
    return found
