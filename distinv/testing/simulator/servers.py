"""A simulated server: the real engine, a disk and a clock of its own, and many ways to die."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from distinv.core.leader import Leader
from distinv.election.api import ElectionFactory
from distinv.entry import Entry, EntryKind, NodeId
from distinv.errors import CorruptLog, StorageError
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import Applied, StateMachine
from distinv.multicast.api import MulticastFactory
from distinv.server.engine import Engine, Settings, Turn
from distinv.storage.api import Record
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
        self.node_id = NodeId(0)
        self.boot = 0
        self._life = 0
        self._persisted = 0
        self._falls_at: tuple[int, int] | None = None
        """The write soon after which it crashes, and for how long."""
        self.broken = ""
        """Why it will never run again."""
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
        self.boot = world.random_id()
        self._life += 1
        self._persisted = 0
        self._falls_at = None
        # A blank disk means a new server: an id is used once.
        self.node_id = recovered.node if recovered.node is not None else world.random_id()
        random = Random(f"{self.name} {self._life} {world.seed} {world.plan.stream}")
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
            settings=Settings("shop", self.name, world.plan.servers, world.plan.election),
            config=world.config,
            recovered=recovered,
            machine=machine,
            check_command=decode_command_untrusted,
            read_log=self.disk.read,
            endpoint=endpoint,
            election=self._election,
            multicast=self._multicast,
            targets=lambda: [BROADCAST],
            random=random,
            now=self.now,
        )
        self.alive = True
        world.note(self.name, f"starts, log ends at {self.engine.node.log.last_index}")
        self.wake(world.now + 10)

    def crash(self, kept: int | None = None) -> None:
        """Power off: what was not synced is lost, but for `kept` writes (a random number)."""
        if self.engine is None:
            return
        writing = self.disk.writing
        self.world.note(self.name, f"crashes with {writing} writes under way")
        self.engine.machine.close()
        self.engine = None
        self.stop()
        self.disk.crash(self.random.randrange(writing + 1) if kept is None else kept)

    def hand_over(self) -> None:
        if self.engine is not None:
            self.engine.transfer(None, self.now)
            self.wake(self.world.now)

    @property
    def leads(self) -> bool:
        return self.engine is not None and self.engine.node.serving

    @property
    def applied(self) -> int:
        return 0 if self.engine is None else self.engine.machine.position.index

    # --- turns --------------------------------------------------------------------------------

    def turn(self) -> None:
        engine, now = self.engine, self.now
        assert engine is not None
        try:
            self._take_turn(engine, now)
        except StorageError as problem:
            # As the driver does: the disk failed, the server stops and says why.
            self.world.note(self.name, f"stops: {problem}")
            self.crash(0)

    def _take_turn(self, engine: Engine, now: int) -> None:
        engine.node.clock_offset_us = EPOCH_US + self.skew_us - self.clock.base_us
        arrived, self.inbox = self.inbox, []
        for data, source in arrived:
            engine.receive(data, source, now)
        if self._persisted:
            ticket, self._persisted = self._persisted, 0
            engine.persisted(ticket, now)
        if (due := engine.deadline()) is not None and due <= now:
            engine.on_deadline(now)
        for _ in range(APPLY_PER_TURN):
            if not engine.apply_waiting:
                break
            engine.apply_more(now)
        self._carry_out(engine, engine.end_turn(now))
        if self.engine is None:
            return
        self._check(engine, now)
        if engine.apply_waiting:
            self.wake(self.world.now + 20)
        elif (due := engine.deadline()) is not None:
            self.wake(self.clock.when(due) + 20 + int(self.random.random() * 380))

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
            errand.finish(errand.run(), self.now)
            self.wake(world.now + 10)
        for peer, address in turn.probes:
            if world.nobody_at(address):
                world.after(400, self._refused, self._life, peer)

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
