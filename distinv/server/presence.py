"""What a server makes known of itself, and what it hears of others like it.

Beacons go to whoever listens, the server list to connected clients, the status to who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from distinv.config import Limits, Timing
from distinv.core.node import Node
from distinv.server.dissolving import Dissolving
from distinv.server.front import Front
from distinv.server.machine import Digest, Machine
from distinv.server.roster import Roster
from distinv.server.seldom import Seldom
from distinv.server.settings import Settings
from distinv.transport.api import Address
from distinv.wire import messages
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint, Incoming, Notice
from distinv.wire.messages import Beacon


class Presence:
    """Belongs to one engine, whose parts it looks at and never changes."""

    def __init__(
        self,
        *,
        node: Node,
        endpoint: Endpoint,
        front: Front,
        settings: Settings,
        dissolving: Dissolving,
        targets: Callable[[], Sequence[Address]],
        timing: Timing,
        limits: Limits,
        random: Random,
        tell: Callable[[str, str], None],
        now: int,
    ) -> None:
        """`tell(text, level)` takes a line for people."""
        self._node = node
        self._endpoint = endpoint
        self._front = front
        self._settings = settings
        self._dissolving = dissolving
        self._targets = targets
        self._timing = timing
        self._random = random
        self._tell = tell
        self._announce_at = now
        self.roster = Roster(
            node=node,
            endpoint=endpoint,
            front=front,
            settings=settings,
            timing=timing,
            limits=limits,
            now=now,
        )
        self._alarms = Seldom(timing.alarm_us, limits.servers_max)
        """By the other cluster's id."""
        self._warnings = Seldom(timing.alarm_us, limits.notices_max)
        """By what is noticed, and where."""
        self._strangers = Seldom(timing.beacon_us, limits.servers_max)
        """Servers of other clusters that were told of this one."""

    # --- beacons ------------------------------------------------------------------------------

    def deadline(self) -> int:
        return self._announce_at

    def announce_by(self, time: int) -> None:
        """There is news for whoever listens."""
        self._announce_at = min(self._announce_at, time)

    def on_deadline(self, now: int) -> None:
        if now < self._announce_at:
            return
        if not self._node.identified:
            self._announce_at = now + self._timing.link_ack_us
            return
        settled = self._node.leader is not None
        interval = self._timing.beacon_us if settled else self._timing.beacon_unjoined_us
        self._announce_at = now + interval * 3 // 4 + self._random.randrange(interval // 2)
        body = encode(self._beacon(now))
        for target in self._targets():
            self._endpoint.send_to(target, body, now)
        self._front.forget_silent(now - self._timing.link_idle_us)
        self.roster.refresh(now)

    def answer_seek(self, incoming: Incoming, cluster_name: str, now: int) -> None:
        """A client, or a server that wants to know."""
        if cluster_name == self._settings.cluster_name:
            self._dissolving.heed_seek(incoming, now)
        asked = cluster_name == self._settings.cluster_name and not incoming.foreign
        if asked and self._node.identified:
            self._endpoint.send_to(incoming.address, encode(self._beacon(now)), now)

    def _beacon(self, now: int) -> Beacon:
        node = self._node
        ends = node.birth is not None or node.log.dissolved is not None
        leader = None if ends else node.leader
        address = self._endpoint.address_of(leader) if leader not in (None, node.self_id) else None
        return Beacon(
            self._settings.cluster_name,
            self._endpoint.cluster_id,
            self._settings.server_name,
            leader or 0,
            address,
            node.leader_ballot,
            node.log.last_index,
            self._settings.expect,
            node.birth.sees if node.birth is not None else (),
            *self._endpoint.speaks,
            role=self.roster.role(),
            commit=node.commit,
            no_quorum_us=self.roster.vacancy.lasts_us(now),
        )

    # --- others -------------------------------------------------------------------------------

    def on_beacon(self, incoming: Incoming, beacon: Beacon, now: int) -> bool:
        """True when it is of this server's cluster, or of a server that has none."""
        endpoint = self._endpoint
        own_id = endpoint.cluster_id
        own_name = beacon.cluster_name == self._settings.cluster_name
        if not own_name or incoming.peer == self._node.self_id:
            return False
        if self._dissolving.heed(incoming, beacon, now):
            return False
        if own_id and beacon.cluster_id not in (0, own_id):
            self._alarm(incoming, beacon, now)
            return False
        moved = endpoint.address_of(incoming.peer) != incoming.address
        if moved or not endpoint.connected(incoming.peer):
            endpoint.connect(incoming.peer, incoming.address, now)
        if self.roster.on_beacon(incoming.peer, beacon, now):
            host, port = incoming.address
            self._tell(f"heard of server {beacon.server_name} at {host}:{port}", "debug")
        lost = beacon.cluster_id == 0 or (beacon.leader == 0 and self._node.serving)
        if lost and own_id:
            endpoint.send_to(incoming.address, encode(self._beacon(now)), now)
        return True

    def _alarm(self, incoming: Incoming, beacon: Beacon, now: int) -> None:
        """Two clusters of one name never merge: say so, once a minute, and let the other know."""
        if self._strangers.may_say(incoming.peer, now):
            # Perhaps it cannot find this cluster by itself.
            self._endpoint.send_to(incoming.address, encode(self._beacon(now)), now)
        if not self._alarms.may_say(beacon.cluster_id, now):
            return
        self._tell(
            f"another cluster is also named {beacon.cluster_name!r}: {beacon.cluster_id:016x}, "
            f"server {beacon.server_name} at {incoming.address[0]}:{incoming.address[1]}; this "
            f"one is {self._endpoint.cluster_id:016x}. Nothing is merged: give one another name, "
            "or stop it",
            "error",
        )

    def on_notice(self, notice: Notice, now: int) -> None:
        """Somebody with another key or version announces itself for as long as it runs."""
        host, port = notice.address
        if not self._warnings.may_say((notice.kind, notice.address), now):
            return
        # Another cluster on the same network is nobody's trouble, unless it has the same name.
        level = "debug" if notice.kind == "foreign_cluster" else "warning"
        self._tell(f"{host}:{port}: {notice.detail or notice.kind}", level)

    @property
    def remembered(self) -> tuple[int, int]:
        """How many servers, and how many other clusters, it remembers to have heard."""
        return self.roster.remembered, len(self._alarms)

    # --- the status ---------------------------------------------------------------------------

    def status(self, machine: Machine, number: int, digest: Digest | None) -> messages.StatusReply:
        """In the words of `distinv status`; with a digest, at that digest's seq."""
        node, settings = self._node, self._settings
        return messages.StatusReply(
            number,
            node.self_id,
            settings.server_name,
            settings.cluster_name,
            self._endpoint.cluster_id,
            self.roster.role(),
            node.leader or 0,
            node.leader_ballot,
            node.log.last_index,
            node.commit,
            machine.position.index,
            machine.seq if digest is None else digest.seq,
            machine.state_digest(),
            "" if digest is None else digest.value,
            settings.election_label,
            self.roster.servers(),
            machine.session_count,
            self.roster.vacancy.lasts_us(self.roster.now),
        )
