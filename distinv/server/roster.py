"""Every server of the cluster as far as this one knows, and who has been shown that list.

The leader knows best: it sends the log, and hears from everybody how far they are. It gives its
list to the other servers at every change, and every server gives it on to the clients that are
connected to it, as it is from where it stands: without a leader it says so, and who is silent.
"""

from __future__ import annotations

from attrs import frozen
from msgspec.structs import replace

from distinv.config import Limits, Timing
from distinv.core.events import Standing
from distinv.core.leader import Leader
from distinv.core.node import Node
from distinv.entry import NodeId
from distinv.server.front import Front
from distinv.server.settings import Settings
from distinv.server.vacancy import Vacancy
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Beacon, ServerInfo, Servers


@frozen
class _Heard:
    """What a server last said of itself."""

    name: str
    no_quorum_us: int
    at: int


class Roster:
    """Belongs to one engine, whose parts it looks at and never changes."""

    def __init__(
        self,
        *,
        node: Node,
        endpoint: Endpoint,
        front: Front,
        settings: Settings,
        timing: Timing,
        limits: Limits,
        now: int,
    ) -> None:
        self.vacancy = Vacancy(node.self_id, now)
        self._node = node
        self._endpoint = endpoint
        self._front = front
        self._settings = settings
        self._timing = timing
        self._limits = limits
        self._heard: dict[NodeId, _Heard] = {}
        """The servers heard last."""
        self._told: Servers | None = None
        """The last list that a leader gave this server."""
        self._changed = False
        """The list may be another than the one that was shown."""
        self._shown: Servers | None = None
        self._newcomers: list[NodeId] = []
        """Clients that were shown none yet."""
        self._given: dict[NodeId, Servers] = {}
        """While leading: which list each server was given, over a link that stands."""
        self._refresh_at = now
        self._looked_at = now

    @property
    def now(self) -> int:
        """The node's own time stands still while nothing concerns it."""
        return max(self._looked_at, self._node.now)

    # --- what is heard ------------------------------------------------------------------------

    def on_beacon(self, source: NodeId, beacon: Beacon, now: int) -> bool:
        """True when that server was not remembered."""
        new = self._heard.pop(source, None) is None
        if len(self._heard) >= self._limits.servers_max:
            del self._heard[next(iter(self._heard))]
        self._heard[source] = _Heard(beacon.server_name, beacon.no_quorum_us, now)
        return new

    def on_servers(self, source: NodeId, message: Servers) -> None:
        """A leader's list; whose ballot is below that of the leader followed, leads no more."""
        if message.leader != source or message.ballot.node != source:
            return
        if message.ballot >= self._node.leader_ballot:
            infos = message.servers[: self._limits.servers_max]
            self._told = replace(message, servers=infos)
            self._changed = True

    def on_link_lost(self, peer: NodeId) -> None:
        """What was under way to it may not have arrived."""
        if self._given.pop(peer, None) is not None:
            self._changed = True

    @property
    def remembered(self) -> int:
        """How many servers it remembers to have heard."""
        return len(self._heard)

    @property
    def told(self) -> int:
        """How many servers are in the list it was told, and how many it has told."""
        return (len(self._told.servers) if self._told is not None else 0) + len(self._given)

    # --- who is shown it ----------------------------------------------------------------------

    def changed(self) -> None:
        """The list may be another now."""
        self._changed = True

    def welcome(self, client: NodeId) -> None:
        """A client that has none yet."""
        self._newcomers.append(client)
        self._changed = True

    def refresh(self, now: int) -> None:
        """From time to time: who fell silent without a leader to notice, how far all are."""
        if self._node.leader is None:
            self._changed = True
        if now >= self._refresh_at:
            self._refresh_at = now + self._timing.beacon_us
            self._changed = True
            shown = self._shown
            if shown is not None and _without_index(shown.servers) != _without_index(
                self.servers()
            ):
                self._shown = None
                self._given.clear()

    def push(self, now: int) -> None:
        """At the end of every turn: show it to whoever has another one."""
        self._looked_at = now
        if not self._changed:
            return
        self._changed = False
        newcomers, self._newcomers = self._newcomers, []
        node = self._node
        if node.birth is not None:
            return  # there is none; when there is, all are shown it
        infos = self.servers()
        # One that leads and does not serve yet is none to clients: they are told when it does.
        role = node.role
        leads = isinstance(role, Leader)
        leader = 0 if leads and not node.serving else node.leader or 0
        servers = Servers(leader, node.leader_ballot, infos)
        if self._shown is None or _essence(servers) != _essence(self._shown):
            self._shown = servers
            newcomers = [*self._front.clients]
        self._front.push(servers, newcomers)
        if isinstance(role, Leader):
            self._give(role.peers, replace(servers, leader=node.self_id), now)
        else:
            self._given.clear()

    def _give(self, peers: tuple[NodeId, ...], servers: Servers, now: int) -> None:
        essence, body = _essence(servers), encode(servers)
        for peer in peers:
            if self._endpoint.connected(peer) and self._given.get(peer) != essence:
                self._given[peer] = essence
                self._endpoint.send(peer, body, now)
        self._given = {peer: each for peer, each in self._given.items() if peer in peers}

    # --- the list -----------------------------------------------------------------------------

    def role(self) -> str:
        """Of this server, as `ServerStatus` names it: a follower without a vote is a learner."""
        node = self._node
        learns = node.birth is None and node.standing is Standing.FOLLOWER
        return "learner" if learns and node.self_id not in self._voters() else node.standing.value

    def servers(self) -> tuple[ServerInfo, ...]:
        """Every server of the cluster as far as this one knows, by id."""
        role = self._node.role
        found = self._as_leader(role) if isinstance(role, Leader) else self._as_told()
        found[self._node.self_id] = self._own()
        return tuple([found[server] for server in sorted(found)])

    def _voters(self) -> dict[int, str]:
        """The names of those in the last voter set."""
        current = self._node.membership.current()
        return {voter.node: voter.name for voter in current.voters} if current else {}

    def _own(self) -> ServerInfo:
        node = self._node
        told = self._told_of(node.self_id)
        return ServerInfo(
            node.self_id,
            self._settings.server_name,
            None,
            self.role(),
            node.durability.durable_index,
            node.self_id in self._voters(),
            0 if isinstance(node.role, Leader) else told.lag if told is not None else None,
            self.vacancy.lasts_us(self.now),
        )

    def _told_of(self, server: int) -> ServerInfo | None:
        told = self._told.servers if self._told is not None else ()
        return next((info for info in told if info.node == server), None)

    def _as_leader(self, role: Leader) -> dict[int, ServerInfo]:
        """What the acknowledgements say."""
        node, voters = self._node, self._voters()
        found = {}
        for peer in dict.fromkeys([NodeId(voter) for voter in voters] + [*role.peers]):
            progress = role.progress_of(peer)
            index = 0 if progress is None else progress.verified
            reached = role.reaches(peer)
            standing = "follower" if peer in voters else "learner"
            found[int(peer)] = ServerInfo(
                peer,
                self._name_of(peer, role.name_of(peer)),
                self._endpoint.address_of(peer),
                standing if reached else "unreachable",
                index,
                peer in voters,
                max(0, node.commit - index),
                0 if reached else self._no_quorum_us(peer),
            )
        return found

    def _name_of(self, peer: NodeId, name: str) -> str:
        """A voter of old did not say its name when it began to receive the log."""
        heard = self._heard.get(peer)
        unnamed = name == f"{peer:016x}"
        return heard.name if unnamed and heard is not None and heard.name else name

    def _as_told(self) -> dict[int, ServerInfo]:
        """What the last leader said, and who can be heard now if there is none."""
        node, voters = self._node, self._voters()
        told = self._told.servers if self._told is not None else ()
        found = {info.node: info for info in told}
        for voter, name in voters.items():
            found.setdefault(voter, ServerInfo(voter, name, None, "follower", 0, True))
        return {
            server: self._seen_from_here(info, votes=server in voters)
            for server, info in found.items()
            if server != node.self_id
        }

    def _seen_from_here(self, info: ServerInfo, *, votes: bool) -> ServerInfo:
        server, role = NodeId(info.node), self._role_of(info, votes=votes)
        follows = self._node.leader is not None and role != "unreachable"
        return replace(
            info,
            address=self._endpoint.address_of(server) or info.address,
            role=role,
            votes=votes,
            no_quorum_us=0 if follows else self._no_quorum_us(server),
        )

    def _role_of(self, info: ServerInfo, *, votes: bool) -> str:
        node = self._node
        if info.node == node.leader:
            return "leader"
        gone = info.role == "unreachable" if node.leader is not None else not self._hears(info.node)
        return "unreachable" if gone else "follower" if votes else "learner"

    def _hears(self, server: int) -> bool:
        """Without a leader: whether it spoke lately, as a voter or to whoever listens."""
        node, beacon = self._node, self._heard.get(NodeId(server))
        since = self.now - self._timing.suspect_ceiling_us
        spoke_at = node.voters_heard.get(NodeId(server), since)
        return spoke_at > since or (beacon is not None and beacon.at > since)

    def _no_quorum_us(self, server: NodeId) -> int | None:
        """By its last beacon, which is not long ago when it has no leader."""
        said = self._heard.get(server)
        if said is None or self.now - said.at > 2 * self._timing.beacon_us:
            return None
        return said.no_quorum_us + (self.now - said.at) if said.no_quorum_us else 0


def _without_index(servers: tuple[ServerInfo, ...]) -> tuple[ServerInfo, ...]:
    return tuple([replace(info, index=0) for info in servers])


def _essence(servers: Servers) -> Servers:
    """What is shown at once when it changes; the rest moves on all the time."""
    infos = [replace(info, index=0, lag=None, no_quorum_us=None) for info in servers.servers]
    return replace(servers, servers=tuple(infos))
