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

from distinv.config import Config
from distinv.core import events
from distinv.core.node import Node
from distinv.election.api import ElectionContext, ElectionFactory
from distinv.entry import ClusterId, Entry, NodeId, SnapshotHead
from distinv.errors import BadDatagram
from distinv.multicast.api import (
    Deliver,
    Group,
    MulticastAction,
    MulticastContext,
    MulticastFactory,
    Unicast,
)
from distinv.server.dissolving import Dissolved, Dissolving
from distinv.server.errands import Errand, Errands
from distinv.server.front import CheckCommand, Front, Situation
from distinv.server.leaving import TICKET as LEAVING
from distinv.server.leaving import Leaving
from distinv.server.machine import Digest, Machine
from distinv.server.orders import Orders
from distinv.server.presence import Presence
from distinv.server.settings import Settings
from distinv.server.snapshot_desk import Snapshot
from distinv.server.snapshot_fetch import Pieces
from distinv.server.twins import Twins
from distinv.server.upkeep import Upkeep
from distinv.storage.api import BaseRecord, Recovered
from distinv.transport.api import Address
from distinv.wire import messages
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint, Incoming, LinkReset, Notice, PeerSeen, TwinHeard
from distinv.wire.messages import (
    ORDERED,
    Append,
    Beacon,
    Claim,
    Claimed,
    ClusterDissolved,
    Encounter,
    Encountered,
    MulticastBody,
    PullReply,
    Seek,
    SnapshotPart,
    SnapshotPull,
)


class Turn(msgspec.Struct, frozen=True):
    """What the driver has to do after a turn."""

    write: events.Write | None
    datagrams: list[tuple[Address, bytes]]
    probes: list[tuple[NodeId, Address]]
    lines: list[events.Tell]
    errands: list[Errand]
    snapshot: SnapshotHead | None
    """All of it was received: look at it, put it in the store's place, call `installed`."""


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
        make_snapshot: Callable[[Any], Callable[[], Snapshot]],
        pieces: Pieces,
        remembered: Sequence[Dissolved] = (),
        joins: int = 0,
    ) -> None:
        """`make_snapshot`, called on the loop, returns what copies the store in a thread;
        `pieces` is where another server's is put together. `remembered`: the clusters this server
        has belonged to that are dissolved; `joins`: the one that it is going to belong to."""
        self.self_id = self_id
        self.settings = settings
        self._timing = config.timing
        self._limits = config.limits
        self.machine = machine
        self._read_log = read_log
        self.endpoint = endpoint
        self._targets = targets
        timing, limits = config.timing, config.limits
        self._multicast = multicast(
            MulticastContext(self_id, _chance_of_its_own(random), timing, limits)
        )
        self._errands = Errands(limits.pending_reads)
        self.front = Front(machine, check_command, limits, self._errands)
        self._orders = Orders(limits.servers_max)
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
            protocol=endpoint.speaks[1],
            touched=machine.touched,
            joins=joins,
        )
        current = self.node.membership.current()
        endpoint.cluster_id = ClusterId(current.cluster_id if current is not None else 0)
        self.exchanging = False
        """The driver waits for what still runs on the store, to put a snapshot in its place:
        nothing new is begun."""
        self.commit = machine.position.index
        """Up to here entries may be applied: committed, and durable here."""
        self._upkeep = Upkeep(
            self.node,
            lambda: make_snapshot(self.machine),
            pieces,
            timing,
            limits,
            lambda index, now: self._step(events.StoreDurable(index), now),
        )
        self.leaving = Leaving(self.node, timing)
        self._dissolving = Dissolving(
            node=self.node,
            endpoint=endpoint,
            settings=settings,
            remembered=remembered,
            timing=timing,
            limits=limits,
            random=random,
            tell=self._tell,
        )
        self._presence = Presence(
            node=self.node,
            endpoint=endpoint,
            front=self.front,
            settings=settings,
            dissolving=self._dissolving,
            targets=targets,
            timing=timing,
            limits=limits,
            random=random,
            tell=self._tell,
            now=now,
        )
        self.twins = Twins(
            node=self_id,
            boot=endpoint.boot,
            since=now,
            random=random,
            timing=timing,
            limits=limits,
            tell=self._tell,
        )
        self._probes: list[tuple[NodeId, Address]] = []
        self._lines: list[events.Tell] = []
        self._complain_at = now
        """When a malformed message may be mentioned again: a datagram holds thousands."""

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

    @property
    def cluster_id(self) -> int:
        """0 before the cluster is born, or found."""
        return self.endpoint.cluster_id

    def dissolved(self, now: int) -> Dissolved | None:
        """This server's cluster has given way to another, and nobody needs what it has: set it
        aside, and begin anew with a blank engine that remembers this, and those before."""
        return self._dissolving.verdict(self.machine, now)

    @property
    def remembered(self) -> tuple[Dissolved, ...]:
        """The dissolved clusters that it tells stragglers of, oldest first."""
        return self._dissolving.remembered

    def status(self, number: int = 0, digest: Digest | None = None) -> messages.StatusReply:
        """This server in the words of `distinv status`; with a digest, at that digest's seq."""
        return self._presence.status(self.machine, number, digest)

    def refused(self, peer: NodeId, now: int) -> None:
        """A probe found that nobody listens at the peer's port."""
        self._step(events.PeerRefused(peer), now)

    def transfer(self, target: NodeId | None, now: int) -> None:
        """Hand leadership over, if this server leads."""
        self._step(events.Transfer(target), now)

    def order(self, server: NodeId, now: int, *, votes: bool) -> None:
        """Give a server a vote or take it away, if this one leads; nobody waits for an answer."""
        self._step(events.Order(0, server, votes), now)

    def deadline(self) -> int:
        """When `on_deadline` is due; there is always something."""
        first = self._presence.deadline()
        if (due := self.node.deadline()) is not None and due < first:
            first = due
        if (due := self.endpoint.deadline()) is not None and due < first:
            first = due
        if (due := self._multicast.deadline()) is not None and due < first:
            first = due
        if (due := self._upkeep.fetch.deadline()) is not None and due < first:
            first = due
        if (due := self.leaving.deadline()) is not None and due < first:
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
        self._presence.on_deadline(now)
        asked = self._upkeep.on_deadline(now)
        if asked is not None:
            self._send(*asked, now)
        wish = self.leaving.on_deadline(now)
        if isinstance(wish, events.Order):
            self._step(wish, now)
        elif wish is not None:
            self._send(*wish, now)

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
        self._presence.roster.push(now)
        for client, message in (*front.take_messages(), *self._orders.take_messages()):
            self._send(client, message, now)
        if endpoint.events:
            self._heed_endpoint(now)
        errands: list[Errand] = []
        if not self.exchanging:
            errands += self._errands.take(self._start_errand)
            errands += self._upkeep.take_errands(self.machine, now)
        turn = Turn(
            write, endpoint.flush(now), self._probes, self._lines, errands, self._upkeep.received
        )
        self._probes, self._lines = [], []
        return turn

    def _start_errand(self, kind: bytes) -> Callable[[], Any]:
        return self.machine.long_reader(kind) if kind else self.machine.digest_reader()

    # --- another server's store ---------------------------------------------------------------

    def wants(self, head: SnapshotHead) -> bool:
        """The snapshot that was received is still of use."""
        return head.position.index > self.node.commit

    def installed(self, machine: Machine, head: SnapshotHead, now: int) -> None:
        """The snapshot is this server's store now, and `machine` is open on it."""
        self.machine = machine
        self.commit = head.position.index
        base = BaseRecord(
            head.position, head.time_us, head.voters_index, head.voters_ballot, head.voters
        )
        self._step(events.Installed(base, machine.touched), now)
        self.front.on_installed(machine)
        self._upkeep.fetch.installed()

    def not_installed(self) -> None:
        """The snapshot that was received is not used: it came too late."""
        self._upkeep.fetch.stop()

    def refused_snapshot(self, now: int) -> int:
        """The snapshot that was received is no good. Returns how long it asks for no other."""
        return self._upkeep.fetch.refuse(now)

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
            if self._presence.on_beacon(incoming, message, now):
                self._step(events.BeaconSeen(incoming.peer, message, incoming.address), now)
        elif kind is Seek:
            self._presence.answer_seek(incoming, message.cluster_name, now)
        elif kind in _OTHER_CLUSTERS:
            self._heed_other_cluster(incoming, message, now)
        elif kind is MulticastBody:
            if incoming.known and self._takes_part(incoming, kind):
                self._do_multicast(
                    self._multicast.on_message(incoming.peer, message.body, now), now
                )
        elif kind is Claim or kind is Claimed:
            self._heed_claim(incoming.address, message, now)
        elif incoming.fresh:
            self._receive_fresh(incoming, message, now)

    def _heed_other_cluster(self, incoming: Incoming, message: Any, now: int) -> None:
        event: events.Event | None = None
        if type(message) is Encounter:
            self._dissolving.on_encounter(incoming, message, now)
        elif type(message) is Encountered:
            event = self._dissolving.on_encountered(message, now)
        else:
            event = self._dissolving.on_told(incoming, message)
        if event is not None:
            self._step(event, now)

    def _receive_fresh(self, incoming: Incoming, message: Any, now: int) -> None:
        """From a process that has proved to be there."""
        kind = type(message)
        if kind in _CLIENT_MESSAGES:
            if self.front.heard(incoming.peer, now):
                self._presence.roster.welcome(incoming.peer)
            _CLIENT_MESSAGES[kind](self, incoming.peer, message, now)
        elif kind is SnapshotPull:
            applied = self.machine.position.index
            part = self._upkeep.on_pull(incoming.peer, message, applied, now)
            if part is not None:
                self._send(incoming.peer, part, now)
        elif kind is messages.Dismissed and message.stop:
            self.leaving.on_dismissed(incoming.peer)
        elif kind is messages.Servers:
            self._presence.roster.on_servers(incoming.peer, message)
        elif kind is messages.QueryFailed:
            self.leaving.on_refused(message.reason, message.detail)
        elif kind is SnapshotPart:
            self._upkeep.on_part(incoming.peer, message, now)
        elif self.node.birth is None or self._takes_part(incoming, kind):
            self._step(events.Received(incoming.peer, message), now)

    def _heed_claim(self, address: Address, message: Claim | Claimed, now: int) -> None:
        if isinstance(message, Claimed):
            self.twins.on_claimed(message, address, now)
            return
        for answer in self.twins.on_claim(message, address, now):
            self.endpoint.send_to(address, encode(answer), now)

    def _takes_part(self, incoming: Incoming, kind: type) -> bool:
        """A blank server takes part only in the cluster that it accepted or wants to join."""
        birth = self.node.birth
        if birth is None or kind in (messages.BirthOffer, messages.BirthAnswer):
            return True
        return incoming.cluster_id != 0 and incoming.cluster_id == birth.cluster_id

    def _heed_endpoint(self, now: int) -> None:
        for event in self.endpoint.take_events():
            if isinstance(event, LinkReset):
                self._step(events.LinkLost(event.peer), now)
                self._presence.roster.on_link_lost(event.peer)
                self._do_multicast(self._multicast.on_peer_lost(event.peer, now), now)
            elif isinstance(event, PeerSeen):
                self._presence.roster.changed()
            elif isinstance(event, TwinHeard):
                question = self.twins.on_heard(event.address, now)
                if question is not None:
                    self.endpoint.send_to(event.address, encode(question), now)
            elif isinstance(event, Notice):
                self._presence.on_notice(event, now)

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

    def _on_order(self, client: NodeId, message: messages.Order, now: int) -> None:
        self._look()
        wish = self._orders.on_order(client, message, self.front.situation)
        if wish is not None:
            self._step(wish, now)

    def _on_ping(self, client: NodeId, message: messages.Ping, now: int) -> None:
        self._look()
        situation = self.front.situation
        pong = messages.Pong(
            message.number,
            situation.leader or 0,
            situation.leader_address,
            self._presence.roster.vacancy.lasts_us(now),
        )
        self._send(client, pong, now)

    def _on_status(self, client: NodeId, message: messages.StatusRequest, now: int) -> None:
        """The inventory digest takes long: the answer waits for it, if it is wanted."""
        if not message.digest:
            self._send(client, self.status(message.number), now)
            return

        def answer(digest: Digest, now: int) -> None:
            self._send(client, self.status(message.number, digest), now)

        if not self._errands.ask(_DIGEST, answer):
            self._send(client, self.status(message.number), now)  # too many want to know it

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
            node.serving,
            handing_over,
            leader is not None or node.hears_quorum(),
            leader,
            address,
            node.log.dissolved is not None,
            node.cluster_protocol,
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
            message = PullReply(
                effect.ballot, effect.previous, bodies, True, 0, self.node.log.base.index
            )
        else:
            message = Append(effect.ballot, effect.previous, bodies, self.node.commit, 0)
        self._send(effect.to, message, now)

    def _do_fetch(self, effect: events.FetchSnapshot, now: int) -> None:
        self._upkeep.want(effect.source, now)

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

    def _do_order_answered(self, effect: events.OrderAnswered, now: int) -> None:
        self._look()
        if effect.ticket == LEAVING and not effect.done:
            self.leaving.on_refused(effect.detail, effect.detail)
        self._orders.on_answered(effect, self.front.situation)

    def _do_probe(self, effect: events.Probe, now: int) -> None:
        address = self.endpoint.address_of(effect.peer)
        if address is not None:
            self._probes.append((effect.peer, address))

    def _do_leader_changed(self, effect: events.LeaderChanged, now: int) -> None:
        self._look()
        self.front.on_leadership(effect.serving)
        self._presence.roster.vacancy.on_leader(effect.leader, serving=effect.serving, now=now)
        self._presence.roster.changed()
        self._presence.announce_by(now + self._timing.link_ack_us)

    def _do_members_changed(self, effect: events.MembersChanged, now: int) -> None:
        self._presence.roster.changed()

    def _do_born(self, effect: events.Born, now: int) -> None:
        self.endpoint.cluster_id = ClusterId(effect.cluster_id)
        self._presence.announce_by(now)

    def _do_tell(self, effect: events.Tell, now: int) -> None:
        self._lines.append(effect)

    def _do_write(self, effect: events.Write, now: int) -> None:
        raise AssertionError("a node hands out its write at the end of a turn only")

    def _tell(self, text: str, level: str = "info") -> None:
        self._lines.append(events.Tell(level, text))


_END_TURN = events.EndTurn()

_OTHER_CLUSTERS = frozenset({Encounter, Encountered, ClusterDissolved})

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
    messages.Order: Engine._on_order,
    messages.Ping: Engine._on_ping,
    messages.StatusRequest: Engine._on_status,
}

_EFFECTS: dict[type, Any] = {
    events.Send: Engine._do_send,
    events.Multicast: Engine._do_multicast_effect,
    events.SendEntries: Engine._do_send_entries,
    events.Write: Engine._do_write,
    events.Commit: Engine._do_commit,
    events.FetchSnapshot: Engine._do_fetch,
    events.ReadReady: Engine._do_read_ready,
    events.ReadFailed: Engine._do_read_failed,
    events.NotAppended: Engine._do_not_appended,
    events.OrderAnswered: Engine._do_order_answered,
    events.Probe: Engine._do_probe,
    events.LeaderChanged: Engine._do_leader_changed,
    events.MembersChanged: Engine._do_members_changed,
    events.Born: Engine._do_born,
    events.Tell: Engine._do_tell,
}
