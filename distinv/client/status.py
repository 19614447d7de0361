"""The cluster as its servers describe it, put together into one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from distinv.client.servers import Server
from distinv.entry import NodeId
from distinv.transport.api import Address
from distinv.wire.messages import ServerInfo, StatusReply

UNREACHABLE = "unreachable"


@frozen
class KnownServer:
    """One server, as the servers' own list has it, or its announcement. Nobody was asked."""

    node: int
    name: str
    address: Address | None
    role: str
    """leader, follower, learner, candidate, blank, or unreachable; empty while nobody said."""
    votes: bool | None
    lag: int | None
    """Committed log entries that it is not known to hold; told with the list and every 5 s."""
    no_quorum_us: int
    """For how long it has known of no leader; 0 when it has one, or nobody said."""
    reachable: bool
    """The others reach it, as far as is known."""
    home: bool
    """It is the one this client talks to."""


@frozen
class ServerStatus:
    """One server. Of an unreachable one only what the others say is known; the rest is None."""

    node: int
    name: str
    address: Address | None
    role: str
    """leader, follower, learner, candidate, blank, or unreachable."""
    votes: bool
    """It is in the last voter set that is known."""
    no_quorum_us: int | None
    """For how long it has known of no leader that a quorum stands behind; 0 when it has one."""
    index: int | None
    """The last log entry it has applied."""
    lag: int | None
    """Log entries that are committed and not applied there; of an unreachable one, those that it
    is not known to hold."""
    seq: int | None
    """The place of the last command applied there."""
    digest: str | None
    """Of the inventory at `seq`, see `Digest`; empty when it was not computed."""
    state_digest: str | None
    """Of everything replicated at `index`: equal on all servers at one index."""


@frozen
class ClusterStatus:
    """Who leads, who follows, and how far each server has come."""

    name: str
    cluster_id: int
    leader: str | None
    """The leader's name; None while there is none."""
    term: int
    election: str
    seq: int
    """The highest of any server."""
    digest: str
    state_digest: str
    """Both of the server that has come furthest."""
    sessions: int
    servers: tuple[ServerStatus, ...]
    """By name."""


def cluster_status(
    replies: Sequence[StatusReply], addresses: Mapping[int, Address | None]
) -> ClusterStatus:
    """One picture of at least one reply. Servers that others name and that are silent are in it.

    `addresses`: where the servers were heard from, which is better than what others say.
    """
    newest = max(replies, key=lambda reply: (reply.ballot, reply.role == "leader", reply.commit))
    furthest = max(replies, key=lambda reply: reply.applied)
    commit = max(reply.commit for reply in replies)
    infos = {info.node: info for reply in (*replies, newest) for info in reply.servers}
    answered = {reply.node: reply for reply in replies}
    told = {node: info.address for node, info in infos.items()}
    voters = {info.node for info in newest.servers if info.votes}
    servers = [
        _answered(
            reply,
            addresses.get(reply.node) or told.get(reply.node),
            commit,
            votes=reply.node in voters,
        )
        for reply in replies
    ]
    servers += [_silent(info) for info in newest.servers if info.node not in answered]
    leader = answered.get(newest.leader) or infos.get(newest.leader)
    return ClusterStatus(
        newest.cluster_name,
        newest.cluster_id,
        None if leader is None else leader.name,
        newest.ballot.term,
        newest.election,
        furthest.seq,
        furthest.digest,
        furthest.state_digest,
        furthest.sessions,
        tuple(sorted(servers, key=lambda server: (server.name, server.node))),
    )


def known_servers(
    servers: Sequence[Server], home: NodeId | None, now: int
) -> tuple[KnownServer, ...]:
    """A client's live list, by name."""
    found = [
        KnownServer(
            each.node,
            each.name,
            each.address,
            each.role,
            each.votes,
            each.lag,
            0 if each.alone_since is None else now - each.alone_since,
            each.role != UNREACHABLE,
            each.node == home,
        )
        for each in servers
    ]
    return tuple(sorted(found, key=lambda each: (each.name, each.node)))


def _answered(
    reply: StatusReply, address: Address | None, commit: int, *, votes: bool
) -> ServerStatus:
    return ServerStatus(
        reply.node,
        reply.name,
        address,
        reply.role,
        votes,
        reply.no_quorum_us,
        reply.applied,
        max(0, commit - reply.applied),
        reply.seq,
        reply.digest,
        reply.state_digest,
    )


def _silent(info: ServerInfo) -> ServerStatus:
    return ServerStatus(
        info.node,
        info.name,
        info.address,
        UNREACHABLE,
        info.votes,
        info.no_quorum_us,
        None,
        info.lag,
        None,
        None,
        None,
    )
