"""Several nodes on one table: a scripted network, disks whose syncs are steps, a clock by hand.

No wire, no engine, no store: only `Node`s, so a scene shows the protocol and runs in
milliseconds. What leaves a node is checked against what its disk really holds at that moment
(`Witness`), by code that shares nothing with the core's own bookkeeping.

Ordered messages arrive in order and wait while the way is cut; the others are lost then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from attrs import Factory, define
from scene_log import CLUSTER_ID, MS, birth_entry, command, log_of, voter_set
from scene_server import Server
from witness import Witness

from distinv.config import Limits, Timing
from distinv.core import events
from distinv.election.api import ElectionFactory
from distinv.entry import Ballot, Entry, EntryKind, NodeId
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord
from distinv.testing.simulator.hostile import Silent
from distinv.wire.batch import SessionCommand, decode_batch
from distinv.wire.messages import ORDERED, Beacon, BirthAnswer, BirthOffer

__all__ = [
    "CLUSTER_ID",
    "MS",
    "Held",
    "Scene",
    "Server",
    "Witness",
    "birth_entry",
    "command",
    "log_of",
    "voter_set",
]

_Which = Callable[[NodeId, NodeId, Any], bool]
"""Picks messages by source, target and what they say."""


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
        preempt: bool = False,
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
        self.preempt = preempt
        self.latency_us = latency_us
        self.jitter: Callable[[], int] = lambda: 0
        self.loss: Callable[[], bool] = lambda: False
        self.witness = Witness()
        self.sent: list[tuple[NodeId, NodeId, Any]] = []
        self.cuts: set[tuple[NodeId, NodeId]] = set()
        self.lose: _Which = lambda *_: False
        """A test's own filter; True loses the message, ordered or not."""
        self.on_message: Callable[[str, NodeId, NodeId, Any], None] = lambda *_: None
        """Told what becomes of a message: it is "taken", "lost" or "held"."""
        self.on_step: Callable[[Server], None] = lambda _: None
        """Told after every step of a server."""
        self._holds: list[tuple[_Which, list[Held]]] = []
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
        return self.hold_between(lambda source, to, message: which(message))

    def hold_between(self, which: _Which) -> list[Held]:
        held: list[Held] = []
        self._holds.append((which, held))
        return held

    def release(self, held: list[Held]) -> None:
        """Deliver what was held back, now, and hold nothing back any more."""
        self._holds = [each for each in self._holds if each[1] is not held]
        for each in held:
            self.pass_on(each)
        held.clear()

    def pass_on(self, held: Held) -> None:
        """Deliver one message that was held back."""
        if held.target.alive:
            self.on_message("taken", held.source.id, held.target.id, held.message)
            held.target.turn(events.Received(held.source.id, held.message))
        else:
            self.on_message("lost", held.source.id, held.target.id, held.message)

    def post(self, source: Server, to: NodeId, message: Any) -> None:
        self.witness.on_send(source, message)
        self.sent.append((source.id, to, message))
        target = self.servers.get(to)
        if target is None or self.lose(source.id, to, message):
            self.on_message("lost", source.id, to, message)
            return
        for which, held in self._holds:
            if which(source.id, to, message):
                held.append(Held(source, target, message))
                self.on_message("held", source.id, to, message)
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
        else:
            self.on_message("lost", source.id, to, message)

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
        cut = (source.id, target.id) in self.cuts
        old = boots[0] < target.heard_boots.get(source.id, 0)
        if not target.alive or cut or old or boots[1] != target.boot:
            self.on_message("lost", source.id, target.id, message)
            return
        target.heard_boots[source.id] = boots[0]
        if cluster_id and target.cluster_id and cluster_id != target.cluster_id:
            return
        birth = target.node.birth
        if birth is not None and not isinstance(message, (BirthOffer, BirthAnswer)):
            belongs = cluster_id != 0 and cluster_id == birth.cluster_id
            if not belongs:
                return  # the engine's rule: a blank server takes part in its own cluster only
        self.on_message("taken", source.id, target.id, message)
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
