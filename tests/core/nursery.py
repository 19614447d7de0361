"""Blank servers on a bad network, in virtual time: only `Birth`, its disk, and its messages.

What `Node` does for birth is done here in its plainest form: an answer leaves when everything
remembered before it is durable, who is born has the first entry, and who joins a cluster gets that
entry from a member. A crash keeps a random part of the writes under way.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from attrs import Factory, define, frozen

from distinv.config import Limits, Timing
from distinv.core.birth import Answer, Birth, BirthAction, Exists, Offer, Remember, Say
from distinv.entry import NO_BALLOT, NodeId, VoterSet
from distinv.storage.api import BirthRecord
from distinv.wire.messages import Beacon, BirthAnswer, BirthOffer

MS = 1_000
TIMING = Timing(discovery_window_us=300 * MS)
LIMITS = Limits()
NOTHING = BirthRecord(None, ())
EVENTS_MAX = 50_000
CRASHED_US = 400 * MS
"""So long a crashed server is down at most, while things go wrong."""


@frozen
class Weather:
    """How one schedule treats its servers. Times in microseconds."""

    expect: tuple[int, ...]
    """Of each server; 0 for none."""
    starts_us: tuple[int, ...]
    """When each is started."""
    loss: float
    duplicate: float
    delay_us: int
    """The mean of an exponential delay: the greater, the more is overtaken."""
    sync_us: int
    unheard_us: dict[tuple[NodeId, NodeId], int]
    """Until when the first is not heard by the second; no longer than until all heals."""
    crash: float
    """The share of writes in the midst, or right after, of which a server crashes."""
    proposer_dies: float
    """The share of proposers that crash at a time between their proposal and its end."""
    storms_us: int
    """Then all heals: everybody runs and hears everybody."""


@define(eq=False)
class Disk:
    """What survives."""

    record: BirthRecord = NOTHING
    log: VoterSet | None = None
    """The first entry, of who was born or joined."""

    def apply(self, records: list[BirthRecord | VoterSet]) -> None:
        for record in records:
            if isinstance(record, BirthRecord):
                self.record = record
            else:
                assert self.log in (None, record), "a server belongs to one cluster"
                self.log = record


@define(eq=False)
class Server:
    node: NodeId
    expect: int
    disk: Disk = Factory(Disk)
    alive: bool = False
    life: int = 0
    birth: Birth | None = None
    member: VoterSet | None = None
    """The cluster in whose log it takes part, durably or not."""
    ticket: int = 0
    """Of the write that is formed in this turn."""
    durable: int = 0
    birth_ticket: int = 0
    open: list[BirthRecord | VoterSet] = Factory(list)
    writes: list[tuple[int, list[BirthRecord | VoterSet]]] = Factory(list)
    held: list[tuple[int, NodeId, Any]] = Factory(list)


class Nursery:
    def __init__(self, seed: int, weather: Weather) -> None:
        self.weather = weather
        self.random = Random(f"nursery {seed}")
        self.now = 0
        self.healed = False
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self.servers = {
            NodeId(number): Server(NodeId(number), expect)
            for number, expect in enumerate(weather.expect, 1)
        }
        self.accepted: dict[int, set[NodeId]] = {}
        """By cluster id: who has ever accepted it durably."""
        self.born: dict[int, VoterSet] = {}
        self.proposals: list[NodeId] = []
        self.fallen_proposers = 0
        for server, at in zip(self.servers.values(), weather.starts_us):
            self._at(at, self._start, server)

    # --- time ---------------------------------------------------------------------------------

    def _at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, call, arguments))

    def run_until(self, time: int, done: Callable[[], bool] = lambda: False) -> bool:
        while self._heap and self._heap[0][0] <= time:
            self.now, _, call, arguments = heappop(self._heap)
            call(*arguments)
            assert self._count < EVENTS_MAX, "something spins"
            if done():
                return True
        self.now = time
        return done()

    def heal(self) -> None:
        """Everybody runs, hears everybody, and nothing is lost any more."""
        self.healed = True
        for server in self.servers.values():
            if not server.alive:
                self._start(server)

    # --- life and death -----------------------------------------------------------------------

    def _start(self, server: Server) -> None:
        if server.alive:
            return
        server.alive = True
        server.life += 1
        server.ticket, server.durable, server.birth_ticket = 1, 0, 0
        server.member = server.disk.log
        server.birth = None if server.member is not None else self._birth(server)
        self._beacon(server, server.life)
        self._wake(server)

    def _birth(self, server: Server) -> Birth:
        return Birth(
            server.node,
            f"s{server.node}",
            "shop",
            server.expect,
            server.disk.record,
            timing=TIMING,
            limits=LIMITS,
            random=Random(self.random.random()),
            now=self.now,
        )

    def _crash(self, server: Server) -> None:
        kept = self.random.randrange(len(server.writes) + 1)
        for _, records in server.writes[:kept]:
            self._write(server, records)
        server.open.clear()
        server.writes.clear()
        server.held.clear()
        server.alive, server.birth, server.member = False, None, None
        self._at(self.now + self.random.randrange(CRASHED_US), self._start, server)

    def _maybe_crash(self, server: Server, life: int) -> None:
        if not self.healed and server.alive and server.life == life:
            self._crash(server)

    # --- turns --------------------------------------------------------------------------------

    def _wake(self, server: Server) -> None:
        if server.birth is not None:
            due = max(self.now, server.birth.deadline())
            self._at(due + self.random.randrange(200), self._on_time, server, server.life)

    def _on_time(self, server: Server, life: int) -> None:
        if server.life != life or server.birth is None or server.birth.deadline() > self.now:
            return
        self._do(server, server.birth.on_deadline(self.now))
        self._end_turn(server)

    def _do(self, server: Server, actions: list[BirthAction]) -> None:
        for action in actions:
            if isinstance(action, Remember):
                server.open.append(action.record)
                server.birth_ticket = server.ticket
            elif isinstance(action, (Answer, Offer)):
                server.held.append((self._last_ticket(server), action.to, action.message))
            elif isinstance(action, Exists):
                self._be_born(server, action.proposal)
            elif isinstance(action, Say) and action.text.startswith("proposing"):
                self.proposals.append(server.node)
                if not self.healed and self.random.random() < self.weather.proposer_dies:
                    self.fallen_proposers += 1
                    soon = self.random.randrange(4 * (self.weather.sync_us + self.weather.delay_us))
                    self._at(self.now + soon, self._maybe_crash, server, server.life)

    def _last_ticket(self, server: Server) -> int:
        return server.ticket if server.open else server.ticket - 1

    def _be_born(self, server: Server, proposal: VoterSet) -> None:
        """A majority has accepted, durably; and no other cluster has any of these."""
        self.born[proposal.cluster_id] = proposal
        holders = self.accepted.get(proposal.cluster_id, set())
        assert 2 * len(holders & set(proposal.ids)) > len(proposal.ids), "no durable majority"
        for other in self.born:
            if other != proposal.cluster_id:
                assert not holders & self.accepted[other], "two clusters share a server"
        self._join(server, proposal)

    def _join(self, server: Server, cluster: VoterSet) -> None:
        server.birth, server.member = None, cluster
        server.open += [cluster, BirthRecord(None, ())]

    def _end_turn(self, server: Server) -> None:
        if server.open:
            server.writes.append((server.ticket, server.open[:]))
            lasts = self.random.randrange(self.weather.sync_us // 2, 3 * self.weather.sync_us)
            self._at(self.now + lasts, self._synced, server, server.life, server.ticket)
            server.open.clear()
            server.ticket += 1
            if not self.healed and self.random.random() < self.weather.crash:
                soon = self.random.randrange(2 * lasts)
                self._at(self.now + soon, self._maybe_crash, server, server.life)
        self._release(server)
        self._wake(server)

    def _release(self, server: Server) -> None:
        ready = [each for each in server.held if each[0] <= server.durable]
        server.held = [each for each in server.held if each[0] > server.durable]
        for _, to, message in ready:
            self._send(server.node, to, message)

    def _synced(self, server: Server, life: int, ticket: int) -> None:
        if server.life != life or not server.alive:
            return
        for _, records in [each for each in server.writes if each[0] <= ticket]:
            self._write(server, records)
        server.writes = [each for each in server.writes if each[0] > ticket]
        server.durable = max(server.durable, ticket)
        if server.birth is not None and server.birth_ticket <= server.durable:
            self._do(server, server.birth.on_durable())
        self._end_turn(server)

    def _write(self, server: Server, records: list[BirthRecord | VoterSet]) -> None:
        server.disk.apply(records)
        accepted = server.disk.record.accepted
        if accepted is not None:
            self.accepted.setdefault(accepted.cluster_id, set()).add(server.node)

    # --- the network --------------------------------------------------------------------------

    def _beacon(self, server: Server, life: int) -> None:
        if server.life != life or not server.alive:
            return
        cluster_id = 0 if server.member is None else server.member.cluster_id
        sees = () if server.birth is None else server.birth.sees
        beacon = Beacon(
            "shop", cluster_id, f"s{server.node}", 0, None, NO_BALLOT, 0, server.expect, sees
        )
        for other in self.servers:
            if other != server.node:
                self._send(server.node, other, beacon)
        every = TIMING.beacon_us // 8 if cluster_id else TIMING.beacon_unjoined_us
        self._at(self.now + every, self._beacon, server, life)

    def _send(self, source: NodeId, target: NodeId, message: Any) -> None:
        weather, random = self.weather, self.random
        copies = 1
        if not self.healed:
            unheard = self.now < weather.unheard_us.get((source, target), 0)
            if unheard or random.random() < weather.loss:
                return
            copies += random.random() < weather.duplicate
        for _ in range(copies):
            delay = 50 + int(random.expovariate(1.0) * weather.delay_us)
            self._at(self.now + delay, self._arrive, source, target, message)

    def _arrive(self, source: NodeId, target: NodeId, message: Any) -> None:
        server = self.servers[target]
        if not server.alive:
            return
        birth = server.birth
        if isinstance(message, Beacon):
            if birth is not None:
                self._do(server, birth.on_beacon(source, message, self.now))
                if message.cluster_id and birth.cluster_id == message.cluster_id:
                    self._send(target, source, message.cluster_id)  # may it have the log?
        elif isinstance(message, int):
            if server.member is not None and server.member.cluster_id == message:
                self._send(target, source, server.member)
        elif isinstance(message, VoterSet):
            if birth is not None and birth.cluster_id == message.cluster_id:
                self._join(server, message)
        elif isinstance(message, BirthOffer):
            self._on_offer(server, source, message.proposal)
        elif birth is not None:
            assert isinstance(message, BirthAnswer)
            self._do(server, birth.on_answer(source, message, self.now))
        self._end_turn(server)

    def _on_offer(self, server: Server, source: NodeId, proposal: VoterSet) -> None:
        if server.birth is not None:
            self._do(server, server.birth.on_offer(source, proposal, self.now))
        elif server.member is not None:
            same = proposal.cluster_id == server.member.cluster_id
            answer = BirthAnswer(proposal.cluster_id, same, None)
            server.held.append((self._last_ticket(server), source, answer))

    # --- what came of it ----------------------------------------------------------------------

    @property
    def strays(self) -> list[NodeId]:
        """Who belongs to no cluster yet, as its disk says."""
        return [server.node for server in self.servers.values() if server.disk.log is None]

    def check(self) -> None:
        """Nobody belongs to a cluster that was not born."""
        for server in self.servers.values():
            if server.disk.log is not None:
                assert self.born.get(server.disk.log.cluster_id) == server.disk.log
