"""A simulated server: the real engine, a disk whose syncs take time, and a way to die."""

from __future__ import annotations

from random import Random

from distinv.core.leader import Leader
from distinv.election.api import ElectionFactory
from distinv.entry import Entry, NodeId
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import Applied, StateMachine
from distinv.multicast.fanout import fanout
from distinv.server.engine import Engine, Settings, Turn
from distinv.storage.api import Record
from distinv.storage.memory import MemoryStorage
from distinv.testing.world import BROADCAST, EPOCH_US, Process, World
from distinv.wire.endpoint import Endpoint

APPLY_PER_TURN = 8


class WatchedMachine(StateMachine):
    """The real store; the checkers see every entry it applies."""

    world: World
    who: str

    def apply(self, entry: Entry) -> list[Applied]:
        self.world.history.on_applied(self.who, entry)
        self.world.note(self.who, f"applies {entry.index} {entry.hash.hex()[:8]}", text=False)
        return super().apply(entry)


class SimServer(Process):
    def __init__(
        self, world: World, number: int, election: ElectionFactory, label: str, expect: int
    ) -> None:
        super().__init__(world, f"server-{number}", (f"10.0.0.{number + 1}", 4747))
        self._number = number
        self._election = election
        self._label = label
        self._expect = expect
        plan = world.plan
        self._skew_us = world.random.randrange(-plan.skew_us, plan.skew_us + 1)
        self._sync_us = plan.sync_us * (100 if plan.slow_disk == number else 1)
        self._storage = MemoryStorage()
        self.node_id = NodeId(0)
        self.boot = 0
        self._life = 0
        self._syncing = False
        self._staged: list[tuple[int, int]] = []
        """(engine's ticket, storage's ticket) of writes not durable yet."""
        self._persisted = 0
        self.engine: Engine | None = None

    # --- life and death -----------------------------------------------------------------------

    def start(self) -> None:
        world = self.world
        recovered = self._storage.recover()
        self.boot = world.random_id()
        self._life += 1
        self._syncing = False
        self._staged.clear()
        self._persisted = 0
        # A blank disk means a new server: an id is used once.
        self.node_id = recovered.node if recovered.node is not None else world.random_id()
        random = Random(f"{self.name} {self._life} {world.seed}")
        machine = WatchedMachine(":memory:", world.config.limits)
        machine.world, machine.who = world, self.name
        endpoint = Endpoint(
            self_id=self.node_id,
            boot=self.boot,
            seal=world.seal(),
            random=random,
            timing=world.timing,
            limits=world.config.limits,
            payload_bytes=world.plan.payload_bytes,
        )
        self.engine = Engine(
            self_id=self.node_id,
            settings=Settings("shop", self.name, self._expect, self._label),
            config=world.config,
            recovered=recovered,
            machine=machine,
            check_command=decode_command_untrusted,
            read_log=self._storage.read,
            endpoint=endpoint,
            election=self._election,
            multicast=fanout,
            targets=lambda: [BROADCAST],
            random=random,
            now=world.now,
        )
        self.alive = True
        world.note(self.name, f"starts, log ends at {self.engine.node.log.last_index}")
        self.wake(world.now + 10)

    def crash(self) -> None:
        """Power off: what was not synced is lost, but for a random part of it."""
        if self.engine is None:
            return
        self.world.note(self.name, f"crashes with {len(self._staged)} writes under way")
        self.engine.machine.close()
        self.engine = None
        self.stop()
        kept = self.world.random.randrange(len(self._staged) + 1)
        self._storage.crash(kept, torn=self.world.random.random() < 0.5)

    # --- turns --------------------------------------------------------------------------------

    def turn(self) -> None:
        engine, now = self.engine, self.world.now
        assert engine is not None
        engine.node.clock_offset_us = EPOCH_US + self._skew_us
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            engine.receive(data, source, now)
        if self._persisted:
            ticket, self._persisted = self._persisted, 0
            engine.persisted(ticket, now)
        if (due := engine.deadline()) is not None and due <= now:
            engine.on_deadline(now)
        for _ in range(APPLY_PER_TURN):
            if engine.apply_waiting:
                engine.apply_more(now)
        self._carry_out(engine, engine.end_turn(now))
        self._check(engine)
        due = engine.deadline()
        if engine.apply_waiting:
            self.wake(now + 20)
        elif due is not None:
            self.wake(due + self.world.random.randrange(20, 400))

    def _carry_out(self, engine: Engine, turn: Turn) -> None:
        world = self.world
        for line in turn.lines:
            world.note(self.name, line.text)
        if turn.write is not None:
            self._write(turn.write.ticket, turn.write.records)
        for target, data in turn.datagrams:
            world.send(self.address, target, data)
        for errand in turn.errands:
            errand.finish(errand.run(), world.now)
            self.wake(world.now + 10)
        for peer, address in turn.probes:
            if world.nobody_at(address):
                world.after(400, self._refused, self._life, peer)

    def _refused(self, life: int, peer: NodeId) -> None:
        if life == self._life and self.engine is not None:
            self.engine.refused(peer, self.world.now)
            self.wake(self.world.now)

    def _check(self, engine: Engine) -> None:
        engine.node.check()
        role = engine.node.role
        if isinstance(role, Leader):
            self.world.history.on_leader(self.node_id, self.boot, role.ballot)

    # --- disk ---------------------------------------------------------------------------------

    def _write(self, ticket: int, records: tuple[Record, ...]) -> None:
        self._staged.append((ticket, self._storage.stage(records)))
        if not self._syncing:
            self._start_sync()

    def _start_sync(self) -> None:
        self._syncing = True
        ticket, stored = self._staged[-1]
        factor = self.world.random.uniform(0.5, 3.0)
        self.world.after(int(self._sync_us * factor), self._synced, self._life, ticket, stored)

    def _synced(self, life: int, ticket: int, stored: int) -> None:
        if life != self._life or not self.alive:
            return
        self._storage.make_durable(stored)
        self._staged = [each for each in self._staged if each[0] > ticket]
        self._syncing = False
        if self._staged:
            self._start_sync()
        self._persisted = ticket
        self.wake(self.world.now)
