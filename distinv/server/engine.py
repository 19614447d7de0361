"""One whole server without I/O: datagrams in; writes, datagrams and log lines out.

A driver (the runtime with sockets, or the simulator) feeds events, then ends the turn:

    engine.receive(data, address, now) ...      as many as wait
    turn = engine.end_turn(now)                 then write, sync, send what it says
    engine.persisted(turn.write.ticket, now)    once that write is durable

Inside, a message goes endpoint -> codec -> `Node.step` or `Front` -> effects -> endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
from attrs import define

from distinv.config import Config
from distinv.core import events
from distinv.core.node import Node
from distinv.election.api import ElectionContext, ElectionFactory
from distinv.entry import ClusterId, Entry, NodeId
from distinv.errors import BadDatagram
from distinv.multicast.api import (
    Deliver,
    Group,
    MulticastAction,
    MulticastContext,
    MulticastFactory,
    Unicast,
)
from distinv.server.errands import Errand, Errands
from distinv.server.front import CheckCommand, Front, Situation
from distinv.server.machine import Digest, Machine
from distinv.storage.api import Recovered
from distinv.transport.api import Address
from distinv.wire import messages
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint, Incoming, LinkReset, Notice, PeerSeen
from distinv.wire.messages import ORDERED, Append, Beacon, MulticastBody, PullReply, Seek


class Turn(msgspec.Struct, frozen=True):
    """What the driver has to do after a turn."""

    write: events.Write | None
    datagrams: list[tuple[Address, bytes]]
    probes: list[tuple[NodeId, Address]]
    lines: list[events.Tell]
    errands: list[Errand]


@define
class Settings:
    """Who this server is."""

    cluster_name: str
    server_name: str
    expect: int
    election_label: str
    preempt: bool = False


class Engine:
    def __init__(
        self,
        *,
        self_id: NodeId,
        settings: Settings,
        config: Config,
        recovered: Recovered,
        machine: Machine,
        check_command: CheckCommand,
        read_log: Callable[[int, int, int], list[Entry]],
        endpoint: Endpoint,
        election: ElectionFactory,
        multicast: MulticastFactory,
        targets: Callable[[], Sequence[Address]],
        random: Random,
        now: int,
    ) -> None:
        self.self_id = self_id
        self.settings = settings
        self._timing = config.timing
        self._limits = config.limits
        self.machine = machine
        self._read_log = read_log
        self.endpoint = endpoint
        self._targets = targets
        self._random = random
        timing, limits = config.timing, config.limits
        self._multicast = multicast(
            MulticastContext(self_id, _chance_of_its_own(random), timing, limits)
        )
        self._errands = Errands(limits.pending_reads)
        self.front = Front(machine, check_command, limits, self._errands)
        self.node = Node(
            self_id=self_id,
            server_name=settings.server_name,
            cluster_name=settings.cluster_name,
            expect=settings.expect,
            recovered=recovered,
            applied=machine.position.index,
            election_label=settings.election_label,
            election=election(ElectionContext(self_id, _chance_of_its_own(random), timing)),
            timing=timing,
            limits=limits,
            random=random,
            now=now,
            preempt=settings.preempt,
        )
        current = self.node.membership.current()
        self.cluster_id = current.cluster_id if current is not None else 0
        endpoint.cluster_id = ClusterId(self.cluster_id)
        self.commit = machine.position.index
        """Up to here entries may be applied: committed, and durable here."""
        self._expect = settings.expect
        self._beacon_at = now
        self._servers_changed = False
        self._pushed: messages.Servers | None = None
        self._probes: list[tuple[NodeId, Address]] = []
        self._lines: list[events.Tell] = []
        self._alarmed: dict[int, int] = {}
        self._complain_at = now
        """When a malformed message may be mentioned again: a datagram holds thousands."""
        self._seen_servers: dict[NodeId, str] = {}

    # --- events -------------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address, now: int) -> None:
        """A datagram from the network, whatever it may be."""
        arrived = self.endpoint.receive_untrusted(data, address, now)
        if self.endpoint.events:
            self._heed_endpoint(now)  # a reset link before the first message of the new one
        for incoming in arrived:
            self._receive_body(incoming, now)

    def persisted(self, ticket: int, now: int) -> None:
        """The write of an earlier turn is durable, and all before it."""
        self._step(events.Persisted(ticket), now)

    def refused(self, peer: NodeId, now: int) -> None:
        """A probe found that nobody listens at the peer's port."""
        self._step(events.PeerRefused(peer), now)

    def transfer(self, target: NodeId | None, now: int) -> None:
        """Hand leadership over, if this server leads."""
        self._step(events.Transfer(target), now)

    def deadline(self) -> int:
        """When `on_deadline` is due; there is always something."""
        first = self._beacon_at
        if (due := self.node.deadline()) is not None and due < first:
            first = due
        if (due := self.endpoint.deadline()) is not None and due < first:
            first = due
        if (due := self._multicast.deadline()) is not None and due < first:
            first = due
        return first

    def on_deadline(self, now: int) -> None:
        due = self.node.deadline()
        if due is not None and due <= now:
            self._step(events.TimeReached(), now)
        due = self.endpoint.deadline()
        if due is not None and due <= now:
            self.endpoint.on_deadline(now)
            self._heed_endpoint(now)
        due = self._multicast.deadline()
        if due is not None and due <= now:
            self._do_multicast(self._multicast.on_deadline(now), now)
        if now >= self._beacon_at:
            self._announce(now)

    def end_turn(self, now: int) -> Turn:
        """Form batches, hand over the turn's write, pack datagrams."""
        front, endpoint = self.front, self.endpoint
        for command in front.take_submissions():
            self._step(events.Submit(command), now)
        for ticket in front.take_reads():
            self._step(events.Read(ticket), now)
        write = None
        for effect in self.node.step(_END_TURN, now):
            if isinstance(effect, events.Write):
                write = effect
            else:
                self._do(effect, now)
        if self._servers_changed:
            self._push_servers()
        for client, message in front.take_messages():
            self._send(client, message, now)
        if endpoint.events:
            self._heed_endpoint(now)
        errands = self._errands.take(self._start_errand)
        turn = Turn(write, endpoint.flush(now), self._probes, self._lines, errands)
        self._probes, self._lines = [], []
        return turn

    def _start_errand(self, kind: bytes) -> Callable[[], Any]:
        return self.machine.long_reader(kind) if kind else self.machine.digest_reader()

    # --- apply --------------------------------------------------------------------------------

    @property
    def apply_waiting(self) -> bool:
        """Committed entries wait to be applied."""
        return self.machine.position.index < self.commit

    def apply_more(self, now: int) -> None:
        """Apply the next committed entry. The driver calls this within its budget of time."""
        index = self.machine.position.index + 1
        entry = self.node.log.body(index)
        if entry is None:
            entry = self._read_log(index, index, 1)[0]
        self.front.on_applied(self.machine.apply(entry))
        self._step(events.Applied(index), now)
        if self.front.reads_waiting:
            self.front.serve_reads()

    # --- what arrives -------------------------------------------------------------------------

    def _receive_body(self, incoming: Incoming, now: int) -> None:
        try:
            message = decode_untrusted(incoming.body)
        except BadDatagram as problem:
            if now >= self._complain_at:
                self._complain_at = now + self._timing.notice_us
                self._tell(f"dropped a malformed message from {incoming.address[0]}: {problem}")
            return
        self._receive_message(incoming, message, now)

    def _receive_message(self, incoming: Incoming, message: Any, now: int) -> None:
        kind = type(message)
        if kind is Beacon:
            self._on_beacon(incoming, message, now)
        elif kind is Seek:
            asked = message.cluster_name == self.settings.cluster_name and not incoming.foreign
            if asked and self.node.identified:
                self.endpoint.send_to(incoming.address, encode(self._beacon()), now)
        elif kind is MulticastBody:
            if incoming.known and self._takes_part(incoming, kind):
                self._do_multicast(
                    self._multicast.on_message(incoming.peer, message.body, now), now
                )
        elif incoming.fresh:
            self._receive_fresh(incoming, message, now)

    def _receive_fresh(self, incoming: Incoming, message: Any, now: int) -> None:
        """From a process that has proved to be there."""
        kind = type(message)
        if kind in _CLIENT_MESSAGES:
            if self.front.heard(incoming.peer, now):
                self._servers_changed = True
                self._pushed = None
            _CLIENT_MESSAGES[kind](self, incoming.peer, message, now)
        elif self.node.birth is None or self._takes_part(incoming, kind):
            self._step(events.Received(incoming.peer, message), now)

    def _takes_part(self, incoming: Incoming, kind: type) -> bool:
        """A blank server takes part only in the cluster that it accepted or wants to join."""
        birth = self.node.birth
        if birth is None or kind in (messages.BirthOffer, messages.BirthAnswer):
            return True
        return incoming.cluster_id != 0 and incoming.cluster_id == birth.cluster_id

    def _on_beacon(self, incoming: Incoming, beacon: Beacon, now: int) -> None:
        if beacon.cluster_name != self.settings.cluster_name or incoming.peer == self.self_id:
            return
        if self.cluster_id and beacon.cluster_id not in (0, self.cluster_id):
            self._alarm(incoming, beacon, now)
            return
        if not self.endpoint.connected(incoming.peer) or (
            self.endpoint.address_of(incoming.peer) != incoming.address
        ):
            self.endpoint.connect(incoming.peer, incoming.address, now)
        if incoming.peer not in self._seen_servers:
            if len(self._seen_servers) >= self._limits.servers_max:
                del self._seen_servers[next(iter(self._seen_servers))]
            host, port = incoming.address
            self._tell(f"heard of server {beacon.server_name} at {host}:{port}", "debug")
        self._seen_servers[incoming.peer] = beacon.server_name
        lost = beacon.cluster_id == 0 or (beacon.leader == 0 and self.node.serving)
        if lost and self.cluster_id:
            self.endpoint.send_to(incoming.address, encode(self._beacon()), now)
        self._step(events.BeaconSeen(incoming.peer, beacon), now)

    def _alarm(self, incoming: Incoming, beacon: Beacon, now: int) -> None:
        """Two clusters of one name never merge: say so, once a minute."""
        last = self._alarmed.get(beacon.cluster_id)
        if last is not None and now - last < 60_000_000:
            return
        if len(self._alarmed) >= self._limits.servers_max:
            oldest = min(self._alarmed, key=self._alarmed.__getitem__)
            if now - self._alarmed[oldest] < 60_000_000:
                return  # so many clusters of one name are somebody's mischief
            del self._alarmed[oldest]
        self._alarmed[beacon.cluster_id] = now
        self._tell(
            f"another cluster is also named {beacon.cluster_name!r}: {beacon.cluster_id:016x}, "
            f"server {beacon.server_name} at {incoming.address[0]}:{incoming.address[1]}; this "
            f"one is {self.cluster_id:016x}. Nothing is merged: give one another name, or stop it",
            "error",
        )

    def _heed_endpoint(self, now: int) -> None:
        for event in self.endpoint.take_events():
            if isinstance(event, LinkReset):
                self._step(events.LinkLost(event.peer), now)
                self._do_multicast(self._multicast.on_peer_lost(event.peer, now), now)
            elif isinstance(event, PeerSeen):
                self._servers_changed = True
            elif isinstance(event, Notice):
                host, port = event.address
                self._tell(f"{host}:{port}: {event.detail or event.kind}", "warning")

    # --- clients ------------------------------------------------------------------------------

    def _on_client_open(self, client: NodeId, message: messages.OpenSession, now: int) -> None:
        self._look()
        self.front.on_open(client, message)

    def _on_client_request(self, client: NodeId, message: messages.Request, now: int) -> None:
        self._look()
        self.front.on_request(client, message)

    def _on_client_end(self, client: NodeId, message: messages.EndSession, now: int) -> None:
        self._look()
        self.front.on_end(client, message)

    def _on_client_query(self, client: NodeId, message: messages.Query, now: int) -> None:
        self._look()
        self.front.on_query(client, message)

    def _on_ping(self, client: NodeId, message: messages.Ping, now: int) -> None:
        self._look()
        situation = self.front.situation
        pong = messages.Pong(message.number, situation.leader or 0, situation.leader_address)
        self._send(client, pong, now)

    def _on_status(self, client: NodeId, message: messages.StatusRequest, now: int) -> None:
        """The inventory digest takes long: the answer waits for it."""

        def answer(digest: Digest, now: int) -> None:
            self._send(client, self.status(message.number, digest), now)

        self._errands.ask(_DIGEST, answer)

    def _look(self) -> None:
        """Show the front how things stand."""
        node = self.node
        leader = node.leader if node.birth is None else None
        role = node.role
        handing_over = bool(getattr(role, "handing_over", False))
        address = None
        if leader is not None and leader != self.self_id:
            address = self.endpoint.address_of(leader)
        self.front.situation = Situation(
            node.serving, handing_over, leader is not None or node.hears_quorum(), leader, address
        )

    # --- effects ------------------------------------------------------------------------------

    def _step(self, event: events.Event, now: int) -> None:
        for effect in self.node.step(event, now):
            _EFFECTS[type(effect)](self, effect, now)

    def _do(self, effect: events.Effect, now: int) -> None:
        _EFFECTS[type(effect)](self, effect, now)

    def _send(self, to: NodeId, message: Any, now: int) -> None:
        endpoint = self.endpoint
        send = endpoint.send if type(message) in ORDERED else endpoint.send_now
        send(to, encode(message), now)

    def _do_send(self, effect: events.Send, now: int) -> None:
        self._send(effect.to, effect.message, now)

    def _do_multicast_effect(self, effect: events.Multicast, now: int) -> None:
        body = encode(effect.message)
        self._do_multicast(self._multicast.on_send(effect.peers, body, now), now)

    def _do_multicast(self, actions: Any, now: int) -> None:
        action: MulticastAction
        wrapped, body = None, b""
        for action in actions:
            if isinstance(action, Unicast):
                if action.body is not wrapped:  # most often one body goes to many
                    wrapped, body = action.body, encode(MulticastBody(action.body))
                self.endpoint.send(action.to, body, now)
            elif isinstance(action, Group):
                for target in self._targets():
                    self.endpoint.send_to(target, encode(MulticastBody(action.body)), now)
            elif isinstance(action, Deliver):
                self._deliver(action, now)

    def _deliver(self, action: Deliver, now: int) -> None:
        """Only what the core multicasts: nothing else may come in by this door."""
        try:
            message = decode_untrusted(action.body)
        except BadDatagram:
            return
        if type(message) is Append:
            self._step(events.Received(action.source, message), now)

    def _do_send_entries(self, effect: events.SendEntries, now: int) -> None:
        first = effect.previous.index + 1
        limit = self._limits.pull_bytes
        entries = self.node.log.bodies(first, effect.last, limit)
        if entries is None:
            # What is not in memory any more is durable; what follows it may not be yet.
            last = min(effect.last, self.node.durability.durable_index)
            entries = self._read_log(first, last, limit)
        bodies = tuple(entries)
        message: Append | PullReply
        if effect.pulled:
            message = PullReply(effect.ballot, effect.previous, bodies, True, 0)
        else:
            message = Append(effect.ballot, effect.previous, bodies, self.node.commit, 0)
        self._send(effect.to, message, now)

    def _do_commit(self, effect: events.Commit, now: int) -> None:
        self.commit = max(self.commit, effect.index)

    def _do_read_ready(self, effect: events.ReadReady, now: int) -> None:
        self.front.on_read_ready(effect.tickets, effect.index)

    def _do_read_failed(self, effect: events.ReadFailed, now: int) -> None:
        self._look()
        self.front.on_read_failed(effect.tickets, effect.reason)

    def _do_not_appended(self, effect: events.NotAppended, now: int) -> None:
        self._look()
        self.front.on_not_appended(effect.commands, effect.reason)

    def _do_probe(self, effect: events.Probe, now: int) -> None:
        address = self.endpoint.address_of(effect.peer)
        if address is not None:
            self._probes.append((effect.peer, address))

    def _do_leader_changed(self, effect: events.LeaderChanged, now: int) -> None:
        self._look()
        self.front.on_leadership(effect.serving)
        self._servers_changed = True
        self._beacon_at = min(self._beacon_at, now + self._timing.link_ack_us)

    def _do_born(self, effect: events.Born, now: int) -> None:
        self.cluster_id = effect.cluster_id
        self.endpoint.cluster_id = ClusterId(effect.cluster_id)
        self._beacon_at = now

    def _do_tell(self, effect: events.Tell, now: int) -> None:
        self._lines.append(effect)

    def _do_write(self, effect: events.Write, now: int) -> None:
        raise AssertionError("a node hands out its write at the end of a turn only")

    def _tell(self, text: str, level: str = "info") -> None:
        self._lines.append(events.Tell(level, text))

    # --- being known --------------------------------------------------------------------------

    def _beacon(self) -> Beacon:
        node = self.node
        leader = node.leader if node.birth is None else None
        address = self.endpoint.address_of(leader) if leader not in (None, self.self_id) else None
        return Beacon(
            self.settings.cluster_name,
            self.cluster_id,
            self.settings.server_name,
            leader or 0,
            address,
            node.leader_ballot,
            node.log.last_index,
            self._expect,
            node.birth.sees if node.birth is not None else (),
        )

    def _announce(self, now: int) -> None:
        if not self.node.identified:
            self._beacon_at = now + self._timing.link_ack_us
            return
        settled = self.node.leader is not None
        interval = self._timing.beacon_us if settled else self._timing.beacon_unjoined_us
        self._beacon_at = now + interval * 3 // 4 + self._random.randrange(interval // 2)
        body = encode(self._beacon())
        for target in self._targets():
            self.endpoint.send_to(target, body, now)
        self.front.forget_silent(now - self._timing.link_idle_us)

    def _role(self) -> str:
        """As `ServerStatus` names it: a follower without a vote is a learner."""
        node = self.node
        learns = node.birth is None and node.standing is events.Standing.FOLLOWER
        return "learner" if learns and not node.is_voter(self.self_id) else node.standing.value

    def servers(self) -> tuple[messages.ServerInfo, ...]:
        """Every server of the cluster as far as this one knows."""
        node = self.node
        current = node.membership.current()
        names = {voter.node: voter.name for voter in current.voters} if current else {}
        role = node.role
        progress_of = getattr(role, "progress_of", None)
        for peer in getattr(role, "peers", ()):
            names.setdefault(peer, self._seen_servers.get(peer, f"{peer:016x}"))
        names.setdefault(self.self_id, self.settings.server_name)
        found = []
        for server, name in sorted(names.items()):
            progress = progress_of(NodeId(server)) if progress_of is not None else None
            if server == self.self_id:
                standing, index = self._role(), node.durability.durable_index
            elif progress is not None:
                late = node.now - progress.last_heard > self._timing.quorum_us
                standing = "unreachable" if late else "learner" if progress.learner else "follower"
                index = progress.verified
            else:
                standing, index = "leader" if server == node.leader else "follower", 0
            address = None if server == self.self_id else self.endpoint.address_of(NodeId(server))
            found.append(messages.ServerInfo(server, name, address, standing, index))
        return tuple(found)

    def _push_servers(self) -> None:
        self._servers_changed = False
        node = self.node
        servers = tuple(
            messages.ServerInfo(each.node, each.name, each.address, each.role, 0)
            for each in self.servers()
        )
        pushed = messages.Servers(node.leader or 0, node.leader_ballot, servers)
        if pushed != self._pushed and node.birth is None:
            self._pushed = pushed
            self.front.push(pushed)

    def status(self, number: int = 0, digest: Digest | None = None) -> messages.StatusReply:
        """This server in the words of `distinv status`; with a digest, at that digest's seq."""
        node, machine = self.node, self.machine
        return messages.StatusReply(
            number,
            self.self_id,
            self.settings.server_name,
            self.settings.cluster_name,
            self.cluster_id,
            self._role(),
            node.leader or 0,
            node.leader_ballot,
            node.log.last_index,
            node.commit,
            machine.position.index,
            machine.seq if digest is None else digest.seq,
            machine.state_digest(),
            "" if digest is None else digest.value,
            self.settings.election_label,
            self.servers(),
            machine.session_count,
        )


_END_TURN = events.EndTurn()

_DIGEST = b""
"""The kind of errand behind a status."""


def _chance_of_its_own(random: Random) -> Random:
    """For a plugin: whatever it does with it, the core's own chance stays chance."""
    return Random(random.getrandbits(64))


_CLIENT_MESSAGES: dict[type, Any] = {
    messages.OpenSession: Engine._on_client_open,
    messages.Request: Engine._on_client_request,
    messages.EndSession: Engine._on_client_end,
    messages.Query: Engine._on_client_query,
    messages.Ping: Engine._on_ping,
    messages.StatusRequest: Engine._on_status,
}

_EFFECTS: dict[type, Any] = {
    events.Send: Engine._do_send,
    events.Multicast: Engine._do_multicast_effect,
    events.SendEntries: Engine._do_send_entries,
    events.Write: Engine._do_write,
    events.Commit: Engine._do_commit,
    events.ReadReady: Engine._do_read_ready,
    events.ReadFailed: Engine._do_read_failed,
    events.NotAppended: Engine._do_not_appended,
    events.Probe: Engine._do_probe,
    events.LeaderChanged: Engine._do_leader_changed,
    events.Born: Engine._do_born,
    events.Tell: Engine._do_tell,
}
