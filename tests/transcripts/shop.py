"""Whole servers and one client on a small network: real engines, a real session, sealed links.

The servers already belong to a cluster, so that a scene begins where its story does.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from scene_log import birth_entry
from timeline import Timeline
from words import TILL, letter

from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.config import Config
from distinv.core import events
from distinv.core.events import InvariantBroken
from distinv.core.leader import Leader
from distinv.core.node import Node
from distinv.election.api import ElectionFactory
from distinv.entry import NO_BALLOT, Ballot, Entry, EntryKind, NodeId
from distinv.errors import BadDatagram
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import Applied, StateMachine
from distinv.multicast.fanout import fanout
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.engine import Engine, Turn
from distinv.server.settings import Settings
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord
from distinv.storage.memory import MemoryStorage
from distinv.transport.api import Address
from distinv.wire.batch import LogCommand, SessionCommand, decode_batch
from distinv.wire.codec import decode_untrusted
from distinv.wire.endpoint import Endpoint, Incoming
from distinv.wire.seal import PlainSeal

EVERYBODY: Address = ("255.255.255.255", 4746)
EPOCH_US = 1_700_000_000_000_000
LATENCY_US = 100
SYNC_US = 100
REFUSED_US = 400


def address_of(node: NodeId) -> Address:
    return (f"10.0.0.{node % 256}", 4747)


class WatchedEndpoint(Endpoint):
    """Tells of every message that it hands on."""

    on_message: Callable[[Incoming], None]

    def receive_untrusted(self, data: bytes, address: Address, now: int) -> list[Incoming]:
        arrived = super().receive_untrusted(data, address, now)
        for incoming in arrived:
            self.on_message(incoming)
        return arrived


class WatchedMachine(StateMachine):
    """The real store; tells which numbers of sessions had an effect."""

    on_number: Callable[[SessionCommand, bool], None]

    def apply(self, entry: Entry) -> list[Applied]:
        told: list[tuple[SessionCommand, bool]] = []
        if entry.kind == EntryKind.COMMANDS:
            for command in decode_batch(entry.payload):
                if isinstance(command, SessionCommand):
                    last = self.last_number(command.session)
                    told.append((command, last is not None and command.number == last + 1))
        applied = super().apply(entry)
        for command, new in told:
            self.on_number(command, new)
        return applied


class ShopServer:
    """One server with its disk; seen by the recorder as those of a `Scene` are."""

    def __init__(self, shop: Shop, id: NodeId) -> None:
        self.shop = shop
        self.id = id
        self.alive = False
        self.boot = 0
        self.tells: list[str] = []
        self.not_appended: list[LogCommand] = []
        self.ready: dict[int, int] = {}
        self.failed: list[int] = []
        self.effects: dict[tuple[int, int], int] = {}
        """By session and number: how often it took effect, in this life."""
        self._storage = MemoryStorage()
        self._storage.recover()
        identity = IdentityRecord(id, "shop")
        birth = EntryRecord(birth_entry(shop.ids))
        self._storage.commit([identity, PromiseRecord(NO_BALLOT), birth])
        self._storage.crash()

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        shop = self.shop
        self.boot += 1
        self.alive = True
        self.effects.clear()
        self._staged: list[tuple[int, int]] = []
        self._due: int | None = None
        random = Random(f"{self.id} {self.boot}")
        machine = WatchedMachine(":memory:", shop.config.limits)
        machine.on_number = self._on_number
        self.machine = machine
        depot = MemoryDepot(shop.config.limits)
        self.engine = Engine(
            self_id=self.id,
            settings=Settings("shop", f"s{self.id}", len(shop.ids), shop.label),
            config=shop.config,
            recovered=self._storage.recover(),
            machine=machine,
            check_command=decode_command_untrusted,
            read_log=self._storage.read,
            endpoint=shop.endpoint(self.id, 1_000 * self.id + self.boot, random),
            election=shop.election,
            multicast=fanout,
            targets=lambda: [EVERYBODY],
            random=random,
            now=shop.timeline.now,
            make_snapshot=depot.maker,
            pieces=depot,
        )
        shop.timeline.after(0, self._wake, self.boot, None)

    def crash(self) -> None:
        self.alive = False
        self.machine.close()
        self._storage.crash()

    def _on_number(self, command: SessionCommand, new: bool) -> None:
        key = (command.session, command.number)
        if new:
            self.effects[key] = self.effects.get(key, 0) + 1
        self.shop.on_number(self, command, new)

    # --- what the recorder looks at -----------------------------------------------------------

    @property
    def node(self) -> Node:
        return self.engine.node

    @property
    def applied(self) -> int:
        return self.machine.position.index if self.alive else 0

    @property
    def durable(self) -> list[Entry]:
        return self._storage._durable.entries

    @property
    def durable_promise(self) -> Ballot:
        return self._storage._durable.promised

    @property
    def leads(self) -> bool:
        return self.alive and isinstance(self.node.role, Leader)

    @property
    def serves(self) -> bool:
        return self.alive and self.node.serving

    # --- turns --------------------------------------------------------------------------------

    def receive(self, data: bytes, source: Address) -> None:
        if self.alive:
            self.engine.receive(data, source, self.shop.timeline.now)
            self.turn()

    def turn(self) -> None:
        engine, shop, now = self.engine, self.shop, self.shop.timeline.now
        engine.node.clocks.own_offset_us = EPOCH_US
        due = engine.deadline()
        if due is not None and due <= now:
            engine.on_deadline(now)
        while engine.apply_waiting:
            engine.apply_more(now)
            shop.on_step(self)
            shop.tell_numbers()
        self._carry_out(engine.end_turn(now))
        engine.node.check()
        shop.on_step(self)
        self._due = engine.deadline()
        if self._due is not None:
            shop.timeline.at(self._due, self._wake, self.boot, self._due)

    def _wake(self, boot: int, due: int | None) -> None:
        if self.alive and boot == self.boot and due == self._due:
            self.turn()

    def _carry_out(self, turn: Turn) -> None:
        shop = self.shop
        self.tells.extend(line.text for line in turn.lines if line.level != "debug")
        if turn.write is not None:
            ticket = self._storage.stage(turn.write.records)
            shop.timeline.after(SYNC_US, self._synced, self.boot, turn.write.ticket, ticket)
        for target, data in turn.datagrams:
            shop.send(self.id, target, data)
        for errand in turn.errands:
            errand.finish(errand.run(), shop.timeline.now)
        for peer, _ in turn.probes:
            if peer in shop.servers and not shop.servers[peer].alive:
                shop.timeline.after(REFUSED_US, self._refused, self.boot, peer)

    def _synced(self, boot: int, ticket: int, stored: int) -> None:
        if self.alive and boot == self.boot:
            self._storage.make_durable(stored)
            self.engine.persisted(ticket, self.shop.timeline.now)
            self.turn()

    def _refused(self, boot: int, peer: NodeId) -> None:
        if self.alive and boot == self.boot:
            self.engine.refused(peer, self.shop.timeline.now)
            self.turn()

    def submit(self, command: LogCommand) -> None:
        """Past the front, which takes a number once only."""
        if self.node.step(events.Submit(command), self.shop.timeline.now):
            raise InvariantBroken("only a leader takes commands")
        self.turn()


class Till:
    """The client: one session, one place to sell."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.alive = True
        self._due: int | None = None
        self.session = ClientSession(
            cluster_name="shop",
            endpoint=shop.endpoint(TILL, 900_001, Random(5)),
            timing=shop.config.timing,
            limits=shop.config.limits,
            random=Random(6),
            name="till",
            targets=lambda: [EVERYBODY],
        )
        shop.timeline.after(0, self.turn)

    def receive(self, data: bytes, source: Address) -> None:
        self.session.receive(data, source, self.shop.timeline.now)
        self.turn()

    def turn(self) -> None:
        shop, session, now = self.shop, self.session, self.shop.timeline.now
        if session.deadline() <= now:
            session.on_deadline(now)
        for target, data in session.flush(now):
            shop.send(TILL, target, data)
        for address in session.probes():
            for server in shop.servers.values():
                if address_of(server.id) == address and not server.alive:
                    shop.timeline.after(REFUSED_US, self._refused, address)
        for completion in session.take_completions():
            shop.on_completion(completion)
        self._due = session.deadline()
        shop.timeline.at(self._due, self._wake, self._due)

    def _wake(self, due: int) -> None:
        if due == self._due:
            self.turn()

    def _refused(self, address: Address) -> None:
        self.session.on_refused(address, self.shop.timeline.now)
        self.turn()


class Shop:
    """The network, the servers 1.. and the till."""

    def __init__(self, count: int, election: ElectionFactory, label: str) -> None:
        self.timeline = Timeline()
        self.config = Config()
        self.election = election
        self.label = label
        self.ids = [NodeId(number) for number in range(1, count + 1)]
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.on_message: Callable[[str, NodeId, NodeId, Any], None] = lambda *_: None
        self.on_step: Callable[[ShopServer], None] = lambda _: None
        self.on_completion: Callable[[Completion], None] = lambda _: None
        self.on_number: Callable[[ShopServer, SessionCommand, bool], None] = lambda *_: None
        self.tell_numbers: Callable[[], None] = lambda: None
        self.servers = {id: ShopServer(self, id) for id in self.ids}
        for server in self.servers.values():
            server.start()
        self.till = Till(self)

    def endpoint(self, id: NodeId, boot: int, random: Random) -> Endpoint:
        endpoint = WatchedEndpoint(
            self_id=id,
            boot=boot,
            seal=PlainSeal(),
            random=random,
            timing=self.config.timing,
            limits=self.config.limits,
            payload_bytes=1_200,
        )
        endpoint.on_message = lambda incoming: self._on_incoming(id, incoming)
        return endpoint

    def _on_incoming(self, to: NodeId, incoming: Incoming) -> None:
        try:
            message = decode_untrusted(incoming.body)
        except BadDatagram as problem:
            raise InvariantBroken(f"{letter(incoming.peer)} sends nonsense: {problem}") from problem
        self.on_message("taken", incoming.peer, to, message)

    def send(self, source: NodeId, target: Address, data: bytes) -> None:
        for id in (*self.ids, TILL):
            everybody = target == EVERYBODY and id != source and id != TILL
            if everybody or address_of(id) == target:
                self.timeline.after(LATENCY_US, self._arrive, source, id, data)

    def _arrive(self, source: NodeId, to: NodeId, data: bytes) -> None:
        if (source, to) not in self.cuts:
            target = self.till if to == TILL else self.servers[to]
            target.receive(data, address_of(source))

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        return self.timeline.run(ms, until)
