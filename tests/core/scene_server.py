"""One node of a scene, with its disk and its driver."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from attrs import Factory, define
from scene_log import command

from distinv.core import events
from distinv.core.candidate import Candidate
from distinv.core.leader import Leader
from distinv.core.node import Node
from distinv.election.api import ElectionContext
from distinv.entry import Ballot, Entry, NodeId
from distinv.storage.api import Record
from distinv.storage.memory import MemoryStorage
from distinv.wire.batch import LogCommand
from distinv.wire.frame import SPEAKS
from distinv.wire.messages import Append, PullReply

if TYPE_CHECKING:
    from scene import Scene

EPOCH_US = 1_700_000_000_000_000


@define(eq=False)
class Server:
    """One node with its disk."""

    scene: Scene
    id: NodeId
    expect: int = 0
    protocol: int = SPEAKS[1]
    """The newest that its release speaks; from the next start on."""
    storage: MemoryStorage = Factory(MemoryStorage)
    sync_us: int = 100
    stalled: bool = False
    """The disk: writes are taken and never end."""
    late_us: int = 0
    """How late this process runs whenever something is due."""
    batch_us: int = 0
    """What arrives within this time is taken in with one turn."""
    skew_us: int = 0
    alive: bool = False
    boot: int = 0
    applied: int = 0
    stored: int = 0
    """What its store holds durably by itself: from there it goes on after a restart."""
    node: Node = Factory(lambda: None, takes_self=False)  # type: ignore[assignment]
    heard_boots: dict[NodeId, int] = Factory(dict)
    serving_changes: list[events.LeaderChanged] = Factory(list)
    not_appended: list[LogCommand] = Factory(list)
    ready: dict[int, int] = Factory(dict)
    """Reads that may be served: ticket -> index."""
    failed: list[int] = Factory(list)
    answers: dict[int, events.OrderAnswered] = Factory(dict)
    """What became of orders, by their tickets."""
    tells: list[str] = Factory(list)
    probes: list[NodeId] = Factory(list)
    fetches: list[NodeId] = Factory(list)
    """From whom it wanted a snapshot. It gets one in its own time: see `install`."""
    cluster_id: int = 0
    _floors: dict[int, int] = Factory(dict)
    _staged: deque[tuple[int, int, tuple[Record, ...]]] = Factory(deque)
    """(node's ticket, storage's ticket, records) of the writes under way."""
    _syncing: bool = False
    _commit: int = 0
    _wake_at: int | None = None
    _inbox: list[events.Event] = Factory(list)
    _was_committed: int = 0

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        scene = self.scene
        recovered = self.storage.recover()
        self.boot += 1
        random = Random(f"{scene.seed} {self.id} {self.boot}")
        context = ElectionContext(self.id, random, scene.timing)
        self.applied = self._commit = self.stored
        self._staged.clear()
        self._inbox.clear()
        self._syncing = False
        self.heard_boots.clear()
        self.node = Node(
            self_id=self.id,
            server_name=f"s{self.id}",
            cluster_name="shop",
            expect=self.expect,
            recovered=recovered,
            applied=self.stored,
            election_label="scene",
            election=scene.election(context),
            timing=scene.timing,
            limits=scene.limits,
            random=random,
            now=scene.now,
            preempt=scene.preempt,
            protocol=self.protocol,
            touched=False,
        )
        current = self.node.membership.current()
        self.cluster_id = current.cluster_id if current is not None else 0
        self._was_committed = self.node.commit
        self.alive = True
        self._wake_at = None
        self.scene.witness.on_durable(self)
        for other in scene.servers.values():
            scene.reset_links(other, self)
        self.turn()

    def crash(self, kept: int = 0) -> None:
        """Power off; the first `kept` writes under way reached the disk all the same."""
        self.alive = False
        self._wake_at = None
        for _, _, records in [*self._staged][:kept]:
            self.scene.witness.on_written(self, records)
        self.storage.crash(kept)
        self.scene.witness.on_durable(self)

    def restart(self) -> None:
        if self.alive:
            self.crash()
        self.start()

    # --- what its disk holds, durably ---------------------------------------------------------

    @property
    def durable(self) -> list[Entry]:
        return self.storage._durable.entries

    @property
    def durable_promise(self) -> Ballot:
        return self.storage._durable.promised

    def holds_durably(self, index: int, digest: bytes) -> bool:
        """Whether its log has this entry on disk, or had it until its store did."""
        image = self.storage._durable
        if index < image.before.index:
            return self.history[index - 1].hash == digest
        position = image.position(index)
        return position is not None and position.hash == digest

    @property
    def writes_under_way(self) -> int:
        return len(self._staged)

    def sync(self) -> None:
        """End every write that has been handed over."""
        if self._staged:
            ticket, stored, _ = self._staged[-1]
            self._end_sync(self.boot, ticket, stored)

    # --- turns --------------------------------------------------------------------------------

    def step(self, event: events.Event) -> None:
        self.node.clocks.own_offset_us = EPOCH_US + self.skew_us
        self._carry_out(self.node.step(event, self.scene.now))
        self.node.check()
        self.scene.witness.on_step(self)
        if self.node.commit > self._was_committed:
            before, self._was_committed = self._was_committed, self.node.commit
            if isinstance(self.node.role, Leader):
                self.scene.witness.on_commit(self, before, self.node.commit)
        self.scene.on_step(self)

    def turn(self, *what: events.Event) -> None:
        """One turn of a driver."""
        if not self.alive:
            return
        for event in what:
            self.step(event)
        while self.applied < self._commit:
            self._apply_next()
        self.step(events.EndTurn())
        self._plan_wake()

    def deliver(self, event: events.Event) -> None:
        """Take `event` in with this turn, or with the next one when turns are batches."""
        if not self.batch_us:
            self.turn(event)
            return
        self._inbox.append(event)
        if len(self._inbox) == 1:
            self.scene.after(self.batch_us, self._drain, self.boot)

    def _drain(self, boot: int) -> None:
        if boot == self.boot and self.alive:
            inbox, self._inbox = self._inbox, []
            self.turn(*inbox)

    def _plan_wake(self) -> None:
        due = self.node.deadline()
        if due is None:
            return
        at = max(due, self.scene.now) + self.late_us
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self.scene.at(at, self._wake, self.boot, at)

    def _wake(self, boot: int, at: int) -> None:
        if boot != self.boot or not self.alive or self._wake_at != at:
            return
        self._wake_at = None
        due = self.node.deadline()
        if due is not None and due <= self.scene.now:
            self.turn(events.TimeReached())
        else:
            self._plan_wake()

    def _apply_next(self) -> None:
        index = self.applied + 1
        entry = self.node.log.body(index) or self.storage.read(index, index, 1)[0]
        self.scene.witness.on_applied(self, entry)
        self.applied = index
        self.step(events.Applied(index))

    # --- the store ----------------------------------------------------------------------------

    def shorten(self) -> None:
        """What is applied is durable in the store: the log may lose its beginning."""
        self.stored = self.applied
        self.turn(events.StoreDurable(self.applied))

    def install(self, source: Server) -> None:
        """What `source` has applied takes the place of the own store."""
        index = source.applied
        base = source.storage._durable.base
        if base is None or base.position.index != index:
            base = source.node.log.base_at(index)
        self.stored = self.applied = self._commit = index
        self.scene.witness.on_installed(self, source.history[:index])
        self._was_committed = max(self._was_committed, index)
        self.turn(events.Installed(base))

    # --- effects ------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[events.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, events.Send):
                self.scene.post(self, effect.to, effect.message)
            elif isinstance(effect, events.Multicast):
                for peer in effect.peers:
                    self.scene.post(self, peer, effect.message)
            elif isinstance(effect, events.SendEntries):
                self._send_entries(effect)
            elif isinstance(effect, events.Write):
                stored = self.storage.stage(effect.records)
                self._staged.append((effect.ticket, stored, effect.records))
                self._start_sync()
            elif isinstance(effect, events.Commit):
                self._commit = max(self._commit, effect.index)
            elif isinstance(effect, events.ReadReady):
                self._reads_ready(effect)
            elif isinstance(effect, events.ReadFailed):
                self.failed.extend(ticket for ticket in effect.tickets if ticket >= 0)
            elif isinstance(effect, events.NotAppended):
                self.not_appended.extend(effect.commands)
            elif isinstance(effect, events.OrderAnswered):
                self.answers[effect.ticket] = effect
            elif isinstance(effect, events.LeaderChanged):
                self.serving_changes.append(effect)
            elif isinstance(effect, events.Born):
                self.cluster_id = effect.cluster_id
                self.scene.witness.on_born(self)
            elif isinstance(effect, events.MembersChanged):
                pass
            elif isinstance(effect, events.FetchSnapshot):
                self.fetches.append(effect.source)
            elif isinstance(effect, events.Probe):
                self.probes.append(effect.peer)
            else:
                self.tells.append(effect.text)

    def _send_entries(self, effect: events.SendEntries) -> None:
        first, node = effect.previous.index + 1, self.node
        entries = node.log.bodies(first, effect.last, self.scene.limits.pull_bytes)
        assert entries is not None, "scenes keep all bodies"
        message: Append | PullReply
        base = node.log.base.index
        if effect.pulled:
            message = PullReply(effect.ballot, effect.previous, tuple(entries), True, 0, base)
        else:
            message = Append(effect.ballot, effect.previous, tuple(entries), node.commit, 0)
        self.scene.post(self, effect.to, message)

    def _start_sync(self) -> None:
        if not self._syncing and not self.stalled:
            self._syncing = True
            ticket, stored, _ = self._staged[-1]
            self.scene.after(self.sync_us, self._end_sync, self.boot, ticket, stored)

    def _end_sync(self, boot: int, ticket: int, stored: int) -> None:
        if boot != self.boot or not self.alive:
            return
        self.storage.make_durable(stored)
        self.scene.witness.on_durable(self)
        while self._staged and self._staged[0][0] <= ticket:
            self.scene.witness.on_written(self, self._staged.popleft()[2])
        self._syncing = False
        if self._staged:
            self._start_sync()
        self.deliver(events.Persisted(ticket))

    # --- clients ------------------------------------------------------------------------------

    def submit(self, *numbers: int) -> None:
        self.turn(*(events.Submit(command(number)) for number in numbers))

    def transfer(self, ticket: int, target: int | None) -> None:
        """Somebody wants `target` to lead, or whoever is best."""
        self.turn(events.Transfer(None if target is None else NodeId(target), ticket))

    def order(self, ticket: int, server: int, *, votes: bool, confirmed: bool = True) -> None:
        """Somebody wants `server` to have a vote, or none."""
        self.turn(events.Order(ticket, NodeId(server), votes, confirmed=confirmed))

    def read(self, ticket: int) -> None:
        """A linearizable read arrives: whatever was applied anywhere may be known outside."""
        self._floors[ticket] = len(self.history)
        self.turn(events.Read(ticket))

    def _reads_ready(self, effect: events.ReadReady) -> None:
        for ticket in effect.tickets:
            assert ticket not in self.ready, f"read {ticket} is answered twice"
            assert effect.index >= self._floors[ticket], "a read from before what was known"
            self.ready[ticket] = effect.index

    @property
    def history(self) -> list[Entry]:
        """What is committed in its cluster, as far as anybody outside can know."""
        return self.scene.witness.history(self.cluster_id)

    @property
    def leads(self) -> bool:
        return self.alive and isinstance(self.node.role, Leader)

    @property
    def serves(self) -> bool:
        return self.alive and self.node.serving

    @property
    def campaigns(self) -> bool:
        return self.alive and isinstance(self.node.role, Candidate)
