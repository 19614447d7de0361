"""Several nodes on one table: a scripted network, disks whose syncs are steps, a clock by hand.

No wire, no engine, no store: only `Node`s, so a scene shows the protocol and runs in
milliseconds. What leaves a node is checked against what its disk really holds at that moment
(`Witness`), by code that shares nothing with the core's own bookkeeping.

Ordered messages arrive in order and wait while the way is cut; the others are lost then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from random import Random
from typing import Any

from attrs import Factory, define

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.core.candidate import Candidate
from distinv.core.leader import Leader
from distinv.core.node import Node
from distinv.election.api import ElectionContext, ElectionFactory
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    Ballot,
    Entry,
    EntryKind,
    NodeId,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord, Record
from distinv.storage.memory import MemoryStorage
from distinv.testing.hostile import Silent
from distinv.wire.messages import (
    ORDERED,
    Append,
    AppendAck,
    Beacon,
    BirthAnswer,
    BirthOffer,
    HeartbeatAck,
    LogCommand,
    Prepare,
    Promise,
    PullReply,
    SessionCommand,
    decode_batch,
)

MS = 1_000
CLUSTER_ID = 77
EPOCH_US = 1_700_000_000_000_000


def voter_set(ids: Iterable[int], cluster_id: int = CLUSTER_ID) -> VoterSet:
    return VoterSet("shop", cluster_id, tuple(Voter(id, f"s{id}") for id in ids))


def birth_entry(ids: Iterable[int]) -> Entry:
    payload = encode_voters(voter_set(ids))
    return make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, payload)


def log_of(ids: Iterable[int], *tail: tuple[int, int]) -> list[Entry]:
    """A log: the birth, then an entry for each (term, owner). Equal calls, equal logs."""
    entries = [birth_entry(ids)]
    for term, owner in tail:
        payload = f"{len(entries) + 1} {term}.{owner}".encode()
        ballot = Ballot(term, NodeId(owner))
        entries.append(make_entry(entries[-1].position, ballot, 0, EntryKind.NOOP, payload))
    return entries


def command(number: int, session: int = 1) -> SessionCommand:
    return SessionCommand(session, number, 0, f"command {session}:{number}".encode())


class Witness:
    """The invariants of docs/protocol.md, looked at from outside."""

    def __init__(self) -> None:
        self._histories: dict[int, list[Entry]] = {}
        self.leaders: dict[Ballot, tuple[NodeId, int]] = {}
        self._prepared: dict[Ballot, tuple[NodeId, int]] = {}
        self._promises: dict[tuple[NodeId, Ballot], Promise] = {}
        self._led: dict[Ballot, list[bytes]] = {}
        """The log of each leadership, as hashes from index 1 on."""
        self._ever_durable: dict[NodeId, set[bytes]] = {}
        self._accepted: dict[int, set[NodeId]] = {}
        """By cluster id: who has ever held its proposal durably accepted."""
        self.born: dict[int, VoterSet] = {}

    def history(self, cluster_id: int = CLUSTER_ID) -> list[Entry]:
        """What was applied anywhere in a cluster, in order."""
        return self._histories.setdefault(cluster_id, [])

    def on_written(self, server: Server, records: Iterable[Record]) -> None:
        """A write is durable as a whole, also what it drops again itself."""
        hashes = self._ever_durable.setdefault(server.id, set())
        hashes.update(each.entry.hash for each in records if isinstance(each, EntryRecord))

    def on_durable(self, server: Server) -> None:
        hashes = self._ever_durable.setdefault(server.id, set())
        hashes.update(entry.hash for entry in server.durable)
        accepted = server.storage._durable.birth.accepted
        if accepted is not None:
            self._accepted.setdefault(accepted.cluster_id, set()).add(server.id)

    def on_born(self, server: Server) -> None:
        voters = server.node.membership.current()
        assert voters is not None
        if voters.cluster_id == CLUSTER_ID:
            return  # existed before the scene began
        self.born[voters.cluster_id] = voters
        holders = self._accepted.get(voters.cluster_id, set())
        count = sum(voter in holders for voter in voters.ids)
        assert 2 * count > len(voters.ids), "birth: a majority has not accepted durably"
        for other in self.born:
            if other != voters.cluster_id:
                assert not holders & self._accepted[other], "birth: two clusters share a server"

    def on_send(self, server: Server, message: Any) -> None:
        if isinstance(message, Prepare):
            first = self._prepared.setdefault(message.ballot, (server.id, server.boot))
            assert first == (server.id, server.boot), "1: a ballot is prepared by one life only"
            assert message.ballot.node == server.id, "1: a node prepares only for itself"
            assert server.durable_promise >= message.ballot, "1: the ballot is durable first"
        elif isinstance(message, Promise):
            first_promise = self._promises.setdefault((server.id, message.ballot), message)
            assert first_promise == message, "2: repeated answers are identical"
            assert server.durable_promise >= message.ballot, "2: a promise is durable first"
            if message.last.index:
                hashes = self._ever_durable[server.id]
                assert message.last.hash in hashes, "2: the log it reports is durable"
        elif isinstance(message, (AppendAck, HeartbeatAck)):
            assert server.durable_promise >= message.ballot, "2: who acknowledges has promised"
            if message.verified:
                digest = self._led[message.ballot][message.verified - 1]
                assert digest in self._ever_durable[server.id], "6: acknowledged is durable"

    def on_step(self, server: Server) -> None:
        node = server.node
        if not isinstance(node.role, Leader):
            return
        ballot = node.role.ballot
        new = ballot not in self.leaders
        first = self.leaders.setdefault(ballot, (server.id, server.boot))
        assert first == (server.id, server.boot), f"1: two leaders in {ballot}"
        led = self._led.setdefault(ballot, [])
        for index in range(len(led) + 1, node.log.last_index + 1):
            position = node.log.position(index)
            assert position is not None
            led.append(position.hash)
        committed = self.history(server.cluster_id)
        if new and all(entry.ballot < ballot for entry in committed):
            held = led[: len(committed)]
            assert held == [entry.hash for entry in committed], "10: a leader has it all"

    def on_commit(self, server: Server, index: int) -> None:
        """A leader counts `index` as committed: do the disks of a majority agree?"""
        position = server.node.log.position(index)
        assert position is not None
        voters = server.node.voters()
        holders = [
            other
            for other in server.scene.servers.values()
            if other.id in voters
            and len(other.durable) >= index
            and other.durable[index - 1].hash == position.hash
        ]
        assert 2 * len(holders) > len(voters), "4: committed, but not on the disks of a majority"

    def on_applied(self, server: Server, entry: Entry) -> None:
        assert len(server.durable) >= entry.index, "7: applied is durable here"
        assert server.durable[entry.index - 1].hash == entry.hash, "7: applied is durable here"
        committed = self.history(server.cluster_id)
        if entry.index > len(committed):
            assert entry.index == len(committed) + 1, "9: applied out of order"
            committed.append(entry)
        assert committed[entry.index - 1].hash == entry.hash, "9: two committed logs"


@define(eq=False)
class Server:
    """One node with its disk."""

    scene: Scene
    id: NodeId
    expect: int = 0
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
    node: Node = Factory(lambda: None, takes_self=False)  # type: ignore[assignment]
    heard_boots: dict[NodeId, int] = Factory(dict)
    serving_changes: list[events.LeaderChanged] = Factory(list)
    not_appended: list[LogCommand] = Factory(list)
    ready: dict[int, int] = Factory(dict)
    """Reads that may be served: ticket -> index."""
    failed: list[int] = Factory(list)
    tells: list[str] = Factory(list)
    probes: list[NodeId] = Factory(list)
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
        self.applied = self._commit = 0
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
            applied=0,
            election_label="scene",
            election=scene.election(context),
            timing=scene.timing,
            limits=scene.limits,
            random=random,
            now=scene.now,
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
        self.node.clock_offset_us = EPOCH_US + self.skew_us
        self._carry_out(self.node.step(event, self.scene.now))
        self.node.check()
        self.scene.witness.on_step(self)
        if self.node.commit > self._was_committed:
            self._was_committed = self.node.commit
            if isinstance(self.node.role, Leader):
                self.scene.witness.on_commit(self, self.node.commit)

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
            elif isinstance(effect, events.LeaderChanged):
                self.serving_changes.append(effect)
            elif isinstance(effect, events.Born):
                self.cluster_id = effect.cluster_id
                self.scene.witness.on_born(self)
            elif isinstance(effect, events.Probe):
                self.probes.append(effect.peer)
            else:
                self.tells.append(effect.text)

    def _send_entries(self, effect: events.SendEntries) -> None:
        first, node = effect.previous.index + 1, self.node
        entries = node.log.bodies(first, effect.last, self.scene.limits.pull_bytes)
        assert entries is not None, "scenes keep all bodies"
        message: Append | PullReply
        if effect.pulled:
            message = PullReply(effect.ballot, effect.previous, tuple(entries), True, 0)
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


@define
class _Link:
    """What is under way in order from one process to another."""

    queue: deque[tuple[int, Any, int]] = Factory(deque)
    pumping: bool = False


@define
class Held:
    """A message that a test keeps back."""

    source: Server
    target: Server
    message: Any


class Scene:
    """A cluster of `count` servers with the ids 1.. and one virtual clock.

    `learners` are further servers that begin blank. With `born=False` all begin blank and look
    for one another; else they begin with `logs` (the birth alone by default) and `promised`.
    """

    def __init__(
        self,
        count: int = 3,
        *,
        learners: int = 0,
        seed: int = 0,
        born: bool = True,
        expect: int | None = None,
        election: ElectionFactory = Silent,
        timing: Timing | None = None,
        limits: Limits | None = None,
        latency_us: int = 100,
        sync_us: int = 100,
        logs: dict[int, list[Entry]] | None = None,
        promised: dict[int, Ballot] | None = None,
    ) -> None:
        self.seed = seed
        self.random = Random(f"scene {seed}")
        self.now = 1_000_000
        self.timing = timing or Timing()
        self.limits = limits or Limits()
        self.election = election
        self.latency_us = latency_us
        self.jitter: Callable[[], int] = lambda: 0
        self.loss: Callable[[], bool] = lambda: False
        self.witness = Witness()
        self.sent: list[tuple[NodeId, NodeId, Any]] = []
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.lose: Callable[[NodeId, NodeId, Any], bool] = lambda *_: False
        """A test's own filter; True loses the message, ordered or not."""
        self._holds: list[tuple[Callable[[Any], bool], list[Held]]] = []
        self._links: dict[tuple[NodeId, NodeId], _Link] = {}
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.servers: dict[NodeId, Server] = {}
        ids = [NodeId(number) for number in range(1, count + 1)]
        expected = count + learners if expect is None else expect
        for number in range(1, count + learners + 1):
            server = self.servers[NodeId(number)] = Server(self, NodeId(number), expected)
            server.sync_us = sync_us
            if born and number <= count:
                entries = (logs or {}).get(number, log_of(ids))
                self._prepare_disk(server, entries, promised or {})
        for server in self.servers.values():
            server.start()
        if learners or not born:
            self.announce()

    def _prepare_disk(
        self, server: Server, entries: list[Entry], promised: dict[int, Ballot]
    ) -> None:
        storage = server.storage
        storage.recover()
        ballot = promised.get(server.id, entries[-1].ballot)
        identity = IdentityRecord(server.id, "shop")
        storage.commit([identity, PromiseRecord(ballot), *map(EntryRecord, entries)])
        storage.crash()

    def __getitem__(self, id: int) -> Server:
        return self.servers[NodeId(id)]

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, call, arguments))

    def after(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, call, *arguments)

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds."""
        end = self.now + ms * MS
        while self._heap and self._heap[0][0] <= end:
            at, _, call, arguments = heappop(self._heap)
            self.now = max(self.now, at)
            call(*arguments)
            if until is not None and until():
                return True
        self.now = max(self.now, end)
        return until is not None and until()

    # --- network ------------------------------------------------------------------------------

    def cut(self, *ways: tuple[int, int]) -> None:
        """Nothing passes from the first to the second any more."""
        self.cuts.update((NodeId(one), NodeId(other)) for one, other in ways)

    def isolate(self, id: int) -> None:
        for other in self.servers:
            if other != id:
                self.cut((id, other), (other, id))

    def heal(self) -> None:
        self.cuts.clear()
        self.lose = lambda *_: False

    def hold(self, which: Callable[[Any], bool]) -> list[Held]:
        """Keep back what `which` picks, until `release`."""
        held: list[Held] = []
        self._holds.append((which, held))
        return held

    def release(self, held: list[Held]) -> None:
        """Deliver what was held back, now, and hold nothing back any more."""
        self._holds = [each for each in self._holds if each[1] is not held]
        for each in held:
            each.target.turn(events.Received(each.source.id, each.message))
        held.clear()

    def post(self, source: Server, to: NodeId, message: Any) -> None:
        self.witness.on_send(source, message)
        self.sent.append((source.id, to, message))
        target = self.servers.get(to)
        if target is None or self.lose(source.id, to, message):
            return
        for which, held in self._holds:
            if which(message):
                held.append(Held(source, target, message))
                return
        if type(message) in ORDERED:
            link = self._links.setdefault((source.id, to), _Link())
            ready = self.now + self.latency_us + self.jitter()
            link.queue.append((ready, message, source.cluster_id))
            if not link.pumping:
                link.pumping = True
                self.at(ready, self._pump, source, target)
        elif not self.loss():
            delay = self.latency_us + self.jitter()
            boots = (source.boot, target.boot)
            self.after(delay, self._arrive, source, target, message, source.cluster_id, boots)

    def _pump(self, source: Server, target: Server) -> None:
        link = self._links[source.id, target.id]
        if not link.queue:
            link.pumping = False
        elif (source.id, target.id) in self.cuts or not target.alive or not source.alive:
            self.after(20 * MS, self._pump, source, target)
        elif link.queue[0][0] > self.now:
            self.at(link.queue[0][0], self._pump, source, target)
        else:
            _, message, cluster_id = link.queue.popleft()
            boots = (source.boot, target.boot)
            self._arrive(source, target, message, cluster_id, boots)
            self.after(1, self._pump, source, target)

    def _arrive(
        self, source: Server, target: Server, message: Any, cluster_id: int, boots: tuple[int, int]
    ) -> None:
        if not target.alive or (source.id, target.id) in self.cuts or boots[1] != target.boot:
            return
        if boots[0] < target.heard_boots.get(source.id, 0):
            return
        target.heard_boots[source.id] = boots[0]
        if cluster_id and target.cluster_id and cluster_id != target.cluster_id:
            return
        birth = target.node.birth
        if birth is not None and not isinstance(message, (BirthOffer, BirthAnswer)):
            belongs = cluster_id != 0 and cluster_id == birth.cluster_id
            if not belongs:
                return  # the engine's rule: a blank server takes part in its own cluster only
        target.deliver(events.Received(source.id, message))

    def reset_links(self, one: Server, other: Server) -> None:
        """A process has started anew: nothing that was under way in order arrives."""
        for source, target in ((one, other), (other, one)):
            link = self._links.get((source.id, target.id))
            if link is not None:
                link.queue.clear()
            if source.alive and source is not target:
                self.after(self.latency_us, self._lost, source, source.boot, target.id)

    def _lost(self, server: Server, boot: int, peer: NodeId) -> None:
        if server.alive and server.boot == boot:
            server.turn(events.LinkLost(peer))

    def break_link(self, source: int, target: int) -> None:
        """What is under way in order from `source` is lost; it is told."""
        link = self._links.get((NodeId(source), NodeId(target)))
        if link is not None:
            link.queue.clear()
        self._lost(self[source], self[source].boot, NodeId(target))

    # --- being known --------------------------------------------------------------------------

    def announce(self) -> None:
        """Every server makes itself known to all, again and again."""
        for server in self.servers.values():
            if server.alive and server.node.identified:
                self._announce_one(server)
        self.after(self.timing.beacon_unjoined_us, self.announce)

    def _announce_one(self, server: Server) -> None:
        node = server.node
        beacon = Beacon(
            "shop",
            server.cluster_id,
            f"s{server.id}",
            (node.leader or 0) if node.birth is None else 0,
            None,
            node.leader_ballot,
            node.log.last_index,
            server.expect,
            (),
        )
        for other in self.servers.values():
            if other is not server and not self.loss():
                delay = self.latency_us + self.jitter()
                self.after(delay, self._hear, server.id, other, beacon)

    def _hear(self, source: NodeId, target: Server, beacon: Beacon) -> None:
        if target.alive and (source, target.id) not in self.cuts:
            foreign = beacon.cluster_id not in (0, target.cluster_id)
            if not (target.cluster_id and foreign):
                target.turn(events.BeaconSeen(source, beacon))

    # --- people -------------------------------------------------------------------------------

    @property
    def leader(self) -> Server | None:
        """Who serves, in the highest ballot."""
        serving = [server for server in self.servers.values() if server.serves]
        return max(serving, key=lambda server: server.node.leader_ballot, default=None)

    def elect(self, id: int, ms: int = 3_000) -> Server:
        """Let `id` campaign, as if its leader had ordered it, and wait until it serves."""
        server = self[id]
        server.node.become_candidate("the scene wants it", server.node.leader_ballot)
        server.turn()
        assert self.run(ms, lambda: server.serves), server.tells
        return server

    def settle(self, ms: int = 10_000) -> Server:
        """Wait until somebody serves and all who live have applied the same log."""

        def settled() -> bool:
            leader = self.leader
            return leader is not None and all(
                server.applied == leader.node.log.last_index
                for server in self.servers.values()
                if server.alive
            )

        assert self.run(ms, settled), {s.id: s.tells[-3:] for s in self.servers.values()}
        leader = self.leader
        assert leader is not None
        return leader

    @property
    def committed(self) -> list[Entry]:
        """What was applied anywhere, of the one cluster there is."""
        (cluster_id,) = {server.cluster_id for server in self.servers.values() if server.cluster_id}
        return self.witness.history(cluster_id)

    def numbers(self) -> list[int]:
        """The numbers of the committed commands, in their order."""
        return [
            each.number
            for entry in self.committed
            if entry.kind == EntryKind.COMMANDS
            for each in decode_batch(entry.payload)
            if isinstance(each, SessionCommand)
        ]

    def messages(self, kind: type, source: int | None = None, to: int | None = None) -> list[Any]:
        """What was sent of one kind, in order."""
        return [
            message
            for one, other, message in self.sent
            if isinstance(message, kind) and source in (None, one) and to in (None, other)
        ]
