"""A simulated server: the real engine, a disk and a clock of its own, and many ways to die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from distinv.core.leader import Leader
from distinv.core.log import Log
from distinv.election.api import ElectionFactory
from distinv.entry import Entry, EntryKind, NodeId, Position, SnapshotHead
from distinv.errors import CorruptLog, IdentityInUse, StorageError
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import Applied, StateMachine
from distinv.inventory.snapshot import Snapshot
from distinv.multicast.api import MulticastFactory
from distinv.runtime.reconcile import reconcile
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.engine import Engine, Turn
from distinv.server.errands import Errand
from distinv.server.roll_call import RollCall
from distinv.server.settings import Settings
from distinv.storage.api import EntryRecord, IdentityRecord, Record, Recovered
from distinv.testing.simulator.checkers import SafetyViolation
from distinv.testing.simulator.disk import Disk
from distinv.testing.simulator.faults import Trap
from distinv.testing.simulator.world import BROADCAST, EPOCH_US, Process, World
from distinv.wire.endpoint import Endpoint

APPLY_PER_TURN = 8
STALL_GRACE_US = 150_000
"""A leader looks at its disk at every heartbeat."""


class WatchedMachine(StateMachine):
    """The real store; the checkers see every entry it applies."""

    world: World
    who: str
    keep: Callable[[Snapshot], None]
    """Called with a copy of what its file holds durably from then on."""

    def checkpointer(self) -> Callable[[], Position]:
        copy, position = self.snapshot_writer(Path()), self.position

        def checkpoint() -> Position:
            self.keep(copy())
            return position

        return checkpoint

    def apply(self, entry: Entry) -> list[Applied]:
        first = self.world.history.on_applied(self.who, entry)
        self.world.note(self.who, f"applies {entry.index} {entry.hash.hex()[:8]}", text=False)
        applied = super().apply(entry)
        if first and self.world.lines is not None:
            what = f"{len(applied)} commands" if applied else EntryKind(entry.kind).name.lower()
            text = f"is the first to apply entry {entry.index} of term {entry.ballot.term}: {what}"
            self.world.tell(self.who, text)
        return applied


class SimServer(Process):
    def __init__(
        self,
        world: World,
        number: int,
        election: ElectionFactory,
        multicast: MulticastFactory,
        spring: Callable[[SimServer, Sequence[Record]], Trap | None],
    ) -> None:
        super().__init__(world, f"server-{number}", (f"10.0.0.{number + 1}", 4747))
        self.number = number
        self._election = election
        self._multicast = multicast
        self._spring = spring
        """Asked at every write: the trap that it sets off, if any."""
        plan = world.plan
        self.skew_us = self.random.randrange(-plan.skew_us, plan.skew_us + 1)
        slow = 100 if plan.slow_disk == number else 1
        self.disk = Disk(world, self.name, plan.sync_us * slow)
        self._store: Snapshot | None = None
        """What the store's file holds after a crash."""
        self._depot = MemoryDepot(world.config.limits, self._open_copy)
        self._installing = False
        self._last_log: Log | None = None
        """Of the engine that ran last."""
        self.node_id = NodeId(0)
        self.boot = 0
        self._life = 0
        self._persisted = 0
        self._due = 0
        """The engine's deadline, as it was after the turn before."""
        self._falls_at: tuple[int, int] | None = None
        """The write soon after which it crashes, and for how long."""
        self.broken = ""
        """Why it will never run again."""
        self._roll: RollCall | None = None
        """While it asks whether another process has its identity, and does nothing else."""
        self._entrance: Callable[[], None] = _nothing
        """Take part, with what was opened at the start."""
        self.took_part = False
        """It has run, and not only asked."""
        self.displaced: IdentityInUse | None = None
        """Why it stopped, if another process has its identity."""
        self.engine: Engine | None = None

    @property
    def now(self) -> int:
        """By its own monotonic clock."""
        return self.clock.read(self.world.now)

    # --- life and death -----------------------------------------------------------------------

    def start(self) -> None:
        """Run, unless its disk is damaged: then it says so and stays down."""
        world = self.world
        try:
            recovered = self.disk.recover(self._synced)
        except CorruptLog as problem:
            self.broken = str(problem)
            world.note(self.name, f"does not start: {problem}")
            return
        machine = self._open_store()
        recovered, begun = reconcile(machine, recovered, self._depot.installed(), self.name)
        if begun is not None:
            world.note(self.name, f"begins its journal anew after {begun.position.index}")
            self.disk.commit([begun])
        self.boot = world.random_id()
        self._life += 1
        self._persisted = 0
        self._falls_at = None
        self.displaced = None
        self._installing = False
        # A blank disk means a new server: an id is used once.
        self.node_id = recovered.node if recovered.node is not None else world.random_id()
        random = Random(f"{self.name} {self._life} {world.seed} {world.plan.stream}")
        self.alive = True
        self._entrance = partial(self._take_part, recovered, machine, random)
        self._opened = machine
        if recovered.node is None:
            self._enter()
        else:
            self._roll = self._roll_call(random)
            world.note(self.name, "asks whether another process has its identity")
            self.wake(world.now + 10)

    def _endpoint(self, node: NodeId, boot: int, random: Random) -> Endpoint:
        world = self.world
        return Endpoint(
            self_id=node,
            boot=boot,
            seal=world.seal(),
            random=random,
            timing=world.timing,
            limits=world.config.limits,
            payload_bytes=world.plan.payload_bytes,
        )

    def _roll_call(self, random: Random) -> RollCall:
        stranger, boot = self.world.random_id(), self.world.random_id()
        return RollCall(
            node=self.node_id,
            boot=self.boot,
            make_endpoint=lambda: self._endpoint(stranger, boot, random),
            targets=lambda: [BROADCAST],
            timing=self.world.timing,
            limits=self.world.config.limits,
            random=random,
            tell=lambda text, level: self.world.note(self.name, text),
            now=self.now,
        )

    def _enter(self) -> None:
        self._roll = None
        self._entrance()

    def _take_part(self, recovered: Recovered, machine: StateMachine, random: Random) -> None:
        world = self.world
        self.took_part, self._due = True, 0
        self.engine = Engine(
            self_id=self.node_id,
            settings=Settings(
                "shop", self.name, world.plan.expect(self.number), world.plan.election
            ),
            config=world.config,
            recovered=recovered,
            machine=machine,
            check_command=decode_command_untrusted,
            read_log=self.disk.read,
            endpoint=self._endpoint(self.node_id, self.boot, random),
            election=self._election,
            multicast=self._multicast,
            targets=lambda: [BROADCAST],
            random=random,
            now=self.now,
            make_snapshot=self._depot.maker,
            pieces=self._depot,
        )
        world.note(self.name, f"starts, log ends at {self.engine.node.log.last_index}")
        self.wake(world.now + 10)

    def crash(self, kept: int | None = None) -> None:
        """Power off: what was not synced is lost, but for `kept` writes (a random number)."""
        if self._roll is not None:
            self.world.note(self.name, "crashes before it takes part")
            self._roll = None
            self._opened.abandon()
            self.stop()
            self.disk.crash(0)
        if self.engine is None:
            return
        writing = self.disk.writing
        self.world.note(self.name, f"crashes with {writing} writes under way")
        machine = self.engine.machine
        assert isinstance(machine, StateMachine)
        if machine.position.index and self.random.random() < 0.5:
            self._store = machine.snapshot_writer(Path())()  # all of it had reached the disk
        machine.abandon()
        self._last_log = self.engine.node.log
        self.engine = None
        self.stop()
        self.disk.crash(self.random.randrange(writing + 1) if kept is None else kept)
        if self.random.random() < 0.5:
            self._depot.discard()

    def lose_disk(self) -> None:
        """What starts here from now on is a new server under an old address."""
        self.crash(0)
        self.disk.wipe()
        self._depot.discard()
        self._store, self._last_log, self.broken = None, None, ""
        self.node_id = NodeId(0)

    def voter_sets(self) -> list[tuple[NodeId, ...]]:
        """Every set that this server may believe to be in play, now or after a restart."""
        log = self._last_log if self.engine is None else self.engine.node.log
        if log is None:
            return []
        floor = 0 if self._store is None else self._store.head.voters_index
        return [log.voters_at(index).ids for index in log.voter_indexes if index >= floor]

    def be_born(self, node_id: NodeId, entry: Entry) -> None:
        """As a birth leaves a voter; it has not run since."""
        self.node_id = node_id
        self._last_log = Log([entry], cache_bytes=0)
        self.disk.format([IdentityRecord(node_id, "shop"), EntryRecord(entry)])

    def beside(self, number: int, name: str) -> SimServer:
        """Another machine with the same settings."""
        other = SimServer(self.world, number, self._election, self._multicast, self._spring)
        other.name, other.name_bytes = name, name.encode()
        return other

    def take_copy(self, of: SimServer) -> None:
        """Its directory is a copy of the other's, as that stands on the disk now."""
        self.node_id = of.node_id
        self.disk.copy(of.disk)
        self._store = of._store

    # --- its store ----------------------------------------------------------------------------

    def _watch(self, machine: WatchedMachine) -> WatchedMachine:
        machine.world, machine.who, machine.keep = self.world, self.name, self._keep
        return machine

    def _keep(self, store: Snapshot) -> None:
        self._store = store

    def _open_copy(self, data: bytes, head: SnapshotHead) -> StateMachine:
        limits = self.world.config.limits
        return self._watch(WatchedMachine.from_snapshot(data, head, limits))

    def _open_store(self) -> StateMachine:
        store = self._store
        if store is None:
            return self._watch(WatchedMachine(":memory:", self.world.config.limits))
        return self._open_copy(store.read(0, store.head.size_bytes), store.head)

    def _install(self, life: int, head: SnapshotHead) -> None:
        """As the driver does."""
        engine, depot = self.engine, self._depot
        if life != self._life or engine is None:
            return
        self._installing = False
        try:
            depot.look(head)
        except StorageError as problem:
            self.world.note(self.name, f"drops a snapshot: {problem}")
            depot.discard()
            engine.refused_snapshot(self.now)
        else:
            if engine.wants(head):
                self.world.history.on_installed(self.name, head.position)
                self.world.note(self.name, f"installs a snapshot of entry {head.position.index}")
                engine.machine.abandon()
                machine = depot.install(head)
                self._store = machine.snapshot_writer(Path())()
                engine.installed(machine, head, self.now)
            else:
                depot.discard()
                engine.not_installed()
        self.wake(self.world.now)

    def order(self, server: NodeId, *, votes: bool) -> None:
        """Somebody wants `server` to vote, or not to."""
        if self.engine is not None:
            self.engine.order(server, self.now, votes=votes)
            self.wake(self.world.now)

    def hand_over(self, target: NodeId | None = None) -> None:
        """To `target`, or to whoever is best, if this one leads."""
        if self.engine is not None:
            self.engine.transfer(target, self.now)
            self.wake(self.world.now)

    def leave(self) -> None:
        """Give its vote up for good; `left` says when it may stop."""
        if self.engine is not None:
            self.engine.leaving.begin(self.now)
            self.wake(self.world.now)

    @property
    def left(self) -> bool:
        return self.engine is not None and self.engine.leaving.done

    @property
    def alarms(self) -> int:
        """How often it has said that another process has its identity, in this life."""
        return 0 if self.engine is None else self.engine.twins.alarms

    @property
    def leads(self) -> bool:
        return self.engine is not None and self.engine.node.serving

    @property
    def applied(self) -> int:
        return 0 if self.engine is None else self.engine.machine.position.index

    def knows_session(self, session: int) -> bool:
        machine = None if self.engine is None else self.engine.machine
        return machine is not None and machine.last_number(session) is not None

    # --- turns --------------------------------------------------------------------------------

    def turn(self) -> None:
        engine, now = self.engine, self.now
        try:
            if self._roll is not None:
                self._call_the_roll(self._roll, now)
                return
            assert engine is not None
            self._take_turn(engine, now)
        except StorageError as problem:
            if isinstance(problem, IdentityInUse):
                self.displaced = problem
            # As the driver does: the disk failed, the server stops and says why.
            self.world.note(self.name, f"stops: {problem}")
            self.crash(0)

    def _call_the_roll(self, roll: RollCall, now: int) -> None:
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            roll.receive(data, source, now)
        roll.on_deadline(now)
        for target, data in roll.flush(now):
            self.world.send(self.address, target, data)
        if roll.refusal is not None:
            raise roll.refusal
        if roll.over(now):
            self._enter()
        else:
            self.wake(self.clock.when(roll.deadline()) + 20)

    def _take_turn(self, engine: Engine, now: int) -> None:
        engine.node.clocks.own_offset_us = EPOCH_US + self.skew_us - self.clock.base_us
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            engine.receive(data, source, now)
        if self._persisted:
            ticket, self._persisted = self._persisted, 0
            engine.persisted(ticket, now)
        if self._due <= now:
            engine.on_deadline(now)
        for _ in range(APPLY_PER_TURN):
            if not engine.apply_waiting:
                break
            engine.apply_more(now)
        self._carry_out(engine, engine.end_turn(now))
        if self.engine is None:
            return
        if engine.twins.displaced is not None:
            raise engine.twins.displaced
        self._check(engine, now)
        self._due = engine.deadline()
        if engine.apply_waiting:
            self.wake(self.world.now + 20)
        else:
            self.wake(self.clock.when(self._due) + 20 + int(self.random.random() * 380))

    def _carry_out(self, engine: Engine, turn: Turn) -> None:
        world = self.world
        for line in turn.lines:
            world.note(self.name, line.text, text=line.level != "debug")
        datagrams = turn.datagrams
        trap = None
        if turn.write is not None:
            self.disk.write(turn.write.ticket, turn.write.records)
            trap = self._spring(self, turn.write.records)
        if trap is not None and trap.how == "mid-turn":
            datagrams = datagrams[: self.random.randrange(len(datagrams) + 1)]
        for target, data in datagrams:
            world.send(self.address, target, data)
        if trap is not None:
            if trap.how != "after-sync":
                self._fall(self._life, trap.down_us)
                return
            assert turn.write is not None
            self._falls_at = turn.write.ticket, trap.down_us
        for errand in turn.errands:
            try:
                result = errand.run()
            except StorageError:
                errand.fail()
            else:
                lasts = self.random.randrange(10, 2_000)
                world.after(lasts, self._finish, self._life, errand, result)
        if turn.snapshot is not None and not self._installing:
            self._installing = True
            lasts = self.random.randrange(10, 5_000)
            world.after(lasts, self._install, self._life, turn.snapshot)
        for peer, address in turn.probes:
            if world.nobody_at(address):
                world.after(400, self._refused, self._life, peer)

    def _finish(self, life: int, errand: Errand, result: Any) -> None:
        if life == self._life and self.engine is not None:
            errand.finish(result, self.now)
            self.wake(self.world.now)

    def _fall(self, life: int, down_us: int) -> None:
        """Crash in a trap, losing what is not synced, and return soon."""
        if life == self._life and not self.world.healed:
            self.crash(0)
            self.world.after(down_us, self._return)

    def _return(self) -> None:
        if not self.alive and not self.world.healed:
            self.start()

    def _refused(self, life: int, peer: NodeId) -> None:
        if life == self._life and self.engine is not None:
            self.engine.refused(peer, self.now)
            self.wake(self.world.now)

    def _synced(self, ticket: int) -> None:
        self._persisted = ticket
        if self._falls_at is not None and ticket >= self._falls_at[0]:
            soon = self.random.randrange(100, 2_000)
            self.world.after(soon, self._fall, self._life, self._falls_at[1])
            self._falls_at = None
        self.wake(self.world.now)

    def _check(self, engine: Engine, now: int) -> None:
        node = engine.node
        node.check()
        role = node.role
        if isinstance(role, Leader):
            self.world.history.on_leader(self.node_id, self.boot, role.ballot)
            stalled_us = node.durability.oldest_write_us(now)
            if stalled_us > self.world.timing.disk_stall_us + STALL_GRACE_US:
                raise SafetyViolation(
                    f"{self.name} leads on although its disk has been writing for {stalled_us} us"
                )


def _nothing() -> None:
    """A server that was never started has nothing to begin with."""
