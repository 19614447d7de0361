"""A client and scripted servers on a simulated network: real endpoints, no sockets, no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

from attrs import define, field

from distinv.client.calls import Completion
from distinv.client.session import ClientSession
from distinv.config import MILLISECOND, SECOND, Limits, Timing
from distinv.entry import Ballot, NodeId
from distinv.transport.api import Address
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint, LinkReset
from distinv.wire.messages import (
    Answer,
    Beacon,
    ClusterDissolved,
    EndSession,
    Message,
    NotTaken,
    OpenSession,
    Ping,
    Pong,
    Query,
    QueryFailed,
    Reply,
    Request,
    Seek,
    ServerInfo,
    Servers,
    SessionEnded,
    SessionOpened,
    StatusReply,
    StatusRequest,
)
from distinv.wire.seal import KeySeal, PlainSeal

CLUSTER = "shop"
CLUSTER_ID = 77
CLIENT_ADDRESS: Address = ("10.0.0.100", 5000)
VOID = b"void"


@define
class FakeSession:
    nonce: int
    last: int = 0
    results: OrderedDict[int, bytes] = field(factory=OrderedDict)


@define
class FakeLog:
    """What all servers agree on: sessions, and the commands that took effect, in order."""

    sessions: dict[int, FakeSession] = field(factory=dict)
    nonces: dict[int, int] = field(factory=dict)
    effects: list[bytes] = field(factory=list)
    opened: int = 0
    ended: list[int] = field(factory=list)
    ballot: int = 1

    def open(self, nonce: int) -> int:
        if nonce not in self.nonces:
            self.opened += 1
            self.nonces[nonce] = self.opened << 12
            self.sessions[self.nonces[nonce]] = FakeSession(nonce)
        return self.nonces[nonce]

    def expire_all(self) -> None:
        self.sessions.clear()
        self.nonces.clear()

    def apply(self, request: Request) -> bytes | str:
        """The result, or the reason why this copy has no effect."""
        session = self.sessions.get(request.session)
        if session is None:
            return "session_expired"
        for number in [number for number in session.results if number < request.lowest]:
            del session.results[number]
        if request.number <= session.last:
            return session.results.get(request.number, "dropped")
        if request.number != session.last + 1:
            return "gap"
        session.last += 1
        if request.command:
            self.effects.append(request.command)
        result = b"ok:" + request.command if request.command else VOID
        session.results[request.number] = result
        return result


Intercept = Callable[["FakeServer", NodeId, Message], bool]
"""Sees every message first; True: nothing else is to be done with it."""


class FakeServer:
    """Takes commands only while it is the world's leader, and applies them at once."""

    def __init__(self, world: World, number: int, key: bytes | None = None) -> None:
        self.world = world
        self.node = NodeId(number)
        self.name = f"server-{number}"
        self.address: Address = (f"10.0.0.{number}", 4747)
        self.cluster_id = CLUSTER_ID
        self.alive = True
        self.gone = ClusterDissolved(CLUSTER, -1, 0)
        """What is said to those who still belong to that cluster."""
        self.intercept: Intercept | None = None
        self.heard: list[Message] = []
        self.clients: dict[NodeId, None] = {}
        self._boots = 0
        self._key = key
        self.start()

    def start(self) -> None:
        self._boots += 1
        world = self.world
        self.clients.clear()
        self.endpoint = Endpoint(
            self_id=self.node,
            boot=self.node * 1_000 + self._boots,
            seal=PlainSeal() if self._key is None else KeySeal(self._key),
            random=Random(world.seed * 31 + self.node),
            timing=world.timing,
            limits=world.limits,
            payload_bytes=1_200,
            cluster_id=self.cluster_id,
        )

    def said(self, kind: type) -> list[Message]:
        return [message for message in self.heard if type(message) is kind]

    def send(self, peer: NodeId, message: Message) -> None:
        if type(message) is Pong:
            self.endpoint.send_now(peer, encode(message), self.world.now)
        else:
            self.endpoint.send(peer, encode(message), self.world.now)

    def push_servers(self, term: int) -> None:
        world = self.world
        infos = tuple(
            ServerInfo(server.node, server.name, server.address, "follower", 0, True)
            for server in world.members
        )
        ballot = Ballot(term, world.leader or 0)
        for client in self.clients:
            self.send(client, Servers(world.leader or 0, ballot, infos))

    def receive(self, data: bytes, source: Address) -> None:
        now = self.world.now
        incoming = self.endpoint.receive_untrusted(data, source, now)
        self.take_events()
        for item in incoming:
            message = decode_untrusted(item.body)
            if isinstance(message, Seek):
                if message.cluster_name == CLUSTER:
                    gone = item.cluster_id == self.gone.cluster_id
                    answer = self.gone if gone else self._beacon()
                    self.endpoint.send_to(source, encode(answer), now)
            elif item.fresh:
                self.heard.append(message)
                self.clients[item.peer] = None
                if self.intercept is None or not self.intercept(self, item.peer, message):
                    self.handle(item.peer, message)

    def take_events(self) -> None:
        for event in self.endpoint.take_events():
            if isinstance(event, LinkReset) and event.reason != "refused":
                self.clients.pop(event.peer, None)

    def _beacon(self) -> Beacon:
        world = self.world
        leader = world.leader or 0
        address = world.by_node[leader].address if leader else None
        ballot = Ballot(world.log.ballot, leader)
        return Beacon(CLUSTER, self.cluster_id, self.name, leader, address, ballot, 1, 0, ())

    def handle(self, peer: NodeId, message: Message) -> None:
        world = self.world
        leader = world.leader or 0
        leader_address = world.by_node[leader].address if leader else None
        leads = leader == self.node
        reason = "not_leader" if leader else "no_leader"
        match message:
            case Ping():
                self.send(peer, Pong(message.number, leader, leader_address))
            case OpenSession() if leads:
                self.send(peer, SessionOpened(message.nonce, world.log.open(message.nonce)))
            case OpenSession():
                self.refuse(peer, 0, message.nonce, message.copy, reason)
            case Request() if leads:
                result = world.log.apply(message)
                if isinstance(result, bytes):
                    self.send(peer, Reply(message.session, message.number, result))
                elif result != "dropped":
                    self.refuse(peer, message.session, message.number, message.copy, result)
            case Request():
                self.refuse(peer, message.session, message.number, message.copy, reason)
            case Query() if leads or not message.linearizable:
                self.send(peer, Answer(message.number, b"answer:" + message.query))
            case Query():
                self.send(peer, QueryFailed(message.number, reason, "", leader, leader_address))
            case EndSession() if leads:
                world.log.sessions.pop(message.session, None)
                world.log.ended.append(message.session)
                self.send(peer, SessionEnded(message.session))
            case StatusRequest():
                self.send(peer, self._status(message.number))

    def refuse(self, peer: NodeId, session: int, number: int, copy: int, reason: str) -> None:
        leader = self.world.leader or 0
        address = self.world.by_node[leader].address if leader else None
        self.send(peer, NotTaken(session, number, copy, reason, "", leader, address))

    def _status(self, number: int) -> StatusReply:
        world = self.world
        leader = world.leader or 0
        role = "leader" if leader == self.node else "follower"
        infos = tuple(
            ServerInfo(server.node, server.name, server.address, "", 0, True)
            for server in world.servers
        )
        return StatusReply(
            number,
            self.node,
            self.name,
            CLUSTER,
            CLUSTER_ID,
            role,
            leader,
            Ballot(world.log.ballot, leader),
            9,
            9,
            9,
            len(world.log.effects),
            "state",
            "digest",
            "bully",
            infos,
            len(world.log.sessions),
        )


class World:
    """Time, the network, the servers and one client. Everything follows from `seed`."""

    def __init__(
        self,
        servers: int = 1,
        *,
        seed: int = 1,
        loss: float = 0.0,
        limits: Limits | None = None,
        timing: Timing | None = None,
        key: bytes | None = None,
        client_key: bytes | None = None,
    ) -> None:
        self.now = 10 * SECOND
        self.seed = seed
        self.loss = loss
        self.limits = limits or Limits()
        self.timing = timing or Timing()
        self.random = Random(seed)
        self.log = FakeLog()
        self.refusing = True
        """Whether the kernel tells that a dead server's port is closed."""
        self.completions: dict[int, Completion] = {}
        self.sent = 0
        self.client_sent_bytes = 0
        self.servers_sent_bytes = 0
        self.astray = 0
        """Datagrams to addresses at which nobody lives."""
        self._flying: list[tuple[int, int, Address, bytes, Address]] = []
        self.servers = [FakeServer(self, number + 1, key) for number in range(servers)]
        self.members = list(self.servers)
        """What the server list that is pushed holds."""
        self.by_node: dict[int, FakeServer] = {server.node: server for server in self.servers}
        self.by_address = {server.address: server for server in self.servers}
        self.targets: Callable[[], Sequence[Address]] = lambda: [
            server.address for server in self.servers
        ]
        """Where the client looks for servers."""
        self.leader: int | None = 1
        self.cut: set[Address] = set()
        """Servers that nothing reaches and that reach nobody."""
        self.client = self.make_client(client_key)

    def make_client(self, key: bytes | None) -> ClientSession:
        self.client_endpoint = Endpoint(
            self_id=NodeId(900),
            boot=900_001,
            seal=PlainSeal() if key is None else KeySeal(key),
            random=Random(self.seed + 5),
            timing=self.timing,
            limits=self.limits,
            payload_bytes=1_200,
        )
        return ClientSession(
            cluster_name=CLUSTER,
            endpoint=self.client_endpoint,
            timing=self.timing,
            limits=self.limits,
            random=Random(self.seed + 6),
            name="till",
            targets=lambda: self.targets(),
        )

    # --- the script ---------------------------------------------------------------------------

    def submit(self, command: bytes, seconds: float = 10, key: str | None = None) -> int:
        return self.client.submit(command, self.now, self.now + int(seconds * SECOND), key)

    def query(self, query: bytes, seconds: float = 10, linearizable: bool = True) -> int:
        deadline = self.now + int(seconds * SECOND)
        return self.client.query(query, self.now, deadline, linearizable=linearizable)

    def move_to_cluster(self, number: int, cluster_id: int) -> None:
        """The server belongs to another cluster of the same name."""
        self.by_node[number].cluster_id = cluster_id
        self.restart(number)

    def lead(self, number: int | None, *, push: bool = True) -> None:
        self.leader = number
        self.log.ballot += 1
        for server in self.servers if push else ():
            if server.alive:
                server.push_servers(self.log.ballot)

    def crash(self, number: int) -> None:
        self.by_node[number].alive = False

    def restart(self, number: int) -> None:
        self.by_node[number].alive = True
        self.by_node[number].start()

    def move(self, number: int, address: Address) -> None:
        """The server is reached by another way, and by the old one not any more."""
        server = self.by_node[number]
        del self.by_address[server.address]
        server.address = address
        self.by_address[address] = server

    def run_for(self, duration_us: int) -> None:
        end = self.now + duration_us
        self.run_until(lambda: False, end)
        self.now = end

    def answer(self, *calls: int, seconds: float = 30) -> list[Completion]:
        """Run until the calls have ended."""
        end = self.now + int(seconds * SECOND)
        self.run_until(lambda: all(call in self.completions for call in calls), end)
        return [self.completions[call] for call in calls]

    def run_until(self, done: Callable[[], bool], end: int) -> None:
        spins = 0
        while True:
            self._turn()
            if done():
                return
            at = self._next_event()
            if at > end:
                return
            spins = 0 if at > self.now else spins + 1
            assert spins < 1_000, "a deadline in the past that nothing moves"
            self.now = max(self.now, at)
            self._deliver_due()
            self._deadlines()

    # --- the machinery ------------------------------------------------------------------------

    def _turn(self) -> None:
        for completion in self.client.take_completions():
            assert completion.call not in self.completions, "a call ended twice"
            self.completions[completion.call] = completion
        for address in self.client.probes():
            server = self.by_address.get(address)
            if self.refusing and (server is None or not server.alive):
                self.client.on_refused(address, self.now)
        self._post(self.client.flush(self.now), CLIENT_ADDRESS)
        for each in self.servers:
            if each.alive:
                self._post(each.endpoint.flush(self.now), each.address)

    def _post(self, datagrams: list[tuple[Address, bytes]], source: Address) -> None:
        for target, data in datagrams:
            self.sent += 1
            if source == CLIENT_ADDRESS:
                self.client_sent_bytes += len(data)
            else:
                self.servers_sent_bytes += len(data)
            self.astray += target not in self.by_address and target != CLIENT_ADDRESS
            if self.random.random() < self.loss or source in self.cut or target in self.cut:
                continue
            at = self.now + self.random.randrange(100, 400)
            heappush(self._flying, (at, self.sent, target, data, source))

    def _next_event(self) -> int:
        times = [self.client.deadline()]
        if self._flying:
            times.append(self._flying[0][0])
        for server in self.servers:
            at = server.endpoint.deadline()
            if server.alive and at is not None:
                times.append(at)
        return min(times)

    def _deliver_due(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, target, data, source = heappop(self._flying)
            server = self.by_address.get(target)
            if target == CLIENT_ADDRESS:
                self.client.receive(data, source, self.now)
            elif server is not None and server.alive:
                server.receive(data, source)

    def _deadlines(self) -> None:
        if self.client.deadline() <= self.now:
            self.client.on_deadline(self.now)
        for server in self.servers:
            at = server.endpoint.deadline()
            if server.alive and at is not None and at <= self.now:
                server.endpoint.on_deadline(self.now)
                server.take_events()


__all__ = ["CLIENT_ADDRESS", "MILLISECOND", "SECOND", "VOID", "FakeServer", "Intercept", "World"]
