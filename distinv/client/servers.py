"""What a client knows of the servers: where they are, which of them lives, who leads."""

from __future__ import annotations

from attrs import define

from distinv.entry import NO_BALLOT, Ballot, NodeId
from distinv.transport.api import Address
from distinv.wire.messages import ServerInfo

WILDCARDS = ("", "0.0.0.0", "::")
"""Hosts a server may be bound to and nobody can reach it at."""


@define(eq=False)
class Server:
    """One server of the cluster, as far as this client knows."""

    node: NodeId
    name: str = ""
    heard_from: Address | None = None
    """Where its own datagrams came from; better than what others say."""
    told: Address | None = None
    seek_after: int = 0
    """When it may be sought at `told` again, should it speak from somewhere else."""
    heard_at: int | None = None
    """When it last proved to live."""
    follows: int | None = None
    """The leader it names, 0 for none; None while it has not said."""
    role: str = ""
    """leader, follower, learner, unreachable, …, as the servers say."""
    votes: bool | None = None
    lag: int | None = None
    alone_since: int | None = None
    """Since when it has known of no leader, by this client's clock; None when it has one, or has
    not said."""

    @property
    def address(self) -> Address | None:
        return self.heard_from or self.told

    def heard_since(self, time: int) -> bool:
        return self.heard_at is not None and self.heard_at >= time

    def is_alone_for(self, no_quorum_us: int, now: int) -> None:
        """Somebody says for how long it has known of no leader; 0: it has one."""
        self.alone_since = now - no_quorum_us if no_quorum_us else None


class ServerTable:
    """The live list, bounded, and the leader hint. Discovery and the servers' own lists fill it."""

    def __init__(self, servers_max: int) -> None:
        self._servers_max = servers_max
        self._servers: dict[NodeId, Server] = {}
        self.leader: NodeId | None = None
        """Whom somebody last named as the leader; it may be gone since."""
        self.ballot: Ballot = NO_BALLOT
        self._commit = 0
        """The furthest that any server said to know the log committed."""

    def __len__(self) -> int:
        return len(self._servers)

    def get(self, node: NodeId) -> Server | None:
        return self._servers.get(node)

    def everything(self) -> list[Server]:
        """All servers, in the order they became known."""
        return list(self._servers.values())

    def at(self, address: Address) -> list[Server]:
        return [server for server in self._servers.values() if server.address == address]

    def heard(self, node: NodeId, address: Address, name: str, now: int) -> Server:
        """A server's own datagram came from `address`."""
        server = self._enter(node)
        server.heard_from = address
        server.name = name or server.name
        return server

    def at_commit(self, server: Server, commit: int) -> None:
        """It says how far it knows the log to be committed."""
        self._commit = max(self._commit, commit)
        server.lag = self._commit - commit

    def told(self, node: NodeId, address: Address | None, name: str = "") -> Server:
        """Somebody says that `node` lives at `address`."""
        server = self._enter(node)
        if address is not None and address[0] not in WILDCARDS and 0 < address[1] < 65536:
            server.told = address
        server.name = name or server.name
        return server

    def replace(
        self, infos: tuple[ServerInfo, ...], keep: tuple[NodeId | None, ...], now: int
    ) -> None:
        """The cluster's own list: those it does not name any more are forgotten."""
        named = {info.node for info in infos}
        gone = [node for node in self._servers if node not in named and node not in keep]
        for node in gone if named else ():
            del self._servers[node]
        for info in infos[: self._servers_max]:
            server = self.told(NodeId(info.node), info.address, info.name)
            server.role, server.votes, server.lag = info.role, info.votes, info.lag
            if info.no_quorum_us is not None:
                server.is_alone_for(info.no_quorum_us, now)

    def _enter(self, node: NodeId) -> Server:
        server = self._servers.get(node)
        if server is None:
            if len(self._servers) >= self._servers_max:
                self._evict()
            server = self._servers[node] = Server(node)
        return server

    def _evict(self) -> None:
        """Forget the one that was silent for the longest time."""
        candidates = [node for node in self._servers if node != self.leader]
        if candidates:
            del self._servers[min(candidates, key=lambda node: self._servers[node].heard_at or 0)]

    def learn_leader(self, leader: NodeId, ballot: Ballot | None) -> bool:
        """Take a hint; a hint without a ballot is believed. True when it changes anything."""
        if ballot is None:
            changed = leader != self.leader
        elif ballot < self.ballot:
            return False
        else:
            changed = leader != self.leader or ballot > self.ballot
            self.ballot = ballot
        self.leader = leader
        return changed

    def best_alive(self, since: int, avoid: NodeId | None) -> Server | None:
        """Of those heard since then: the leader, one with a leader, not `avoid`, any."""
        alive = [server for server in self._servers.values() if server.heard_since(since)]
        return max(alive, key=lambda server: self._merit(server, avoid), default=None)

    def _merit(self, server: Server, avoid: NodeId | None) -> tuple[bool, bool, bool]:
        return (server.node != avoid, server.node == self.leader, server.follows != 0)
