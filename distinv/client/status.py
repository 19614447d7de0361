"""The cluster as its servers describe it, put together into one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from distinv.transport.api import Address
from distinv.wire.messages import ServerInfo, StatusReply

UNREACHABLE = "unreachable"


@frozen
class ServerStatus:
    """One server. Of an unreachable one only what the others say is known; the rest is None."""

    node: int
    name: str
    address: Address | None
    role: str
    """leader, follower, learner, candidate, blank, or unreachable."""
    index: int | None
    """The last log entry it has applied."""
    lag: int | None
    """Log entries that are committed and not applied there."""
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
    servers = [
        _answered(reply, addresses.get(reply.node) or told.get(reply.node), commit)
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


def _answered(reply: StatusReply, address: Address | None, commit: int) -> ServerStatus:
    return ServerStatus(
        reply.node,
        reply.name,
        address,
        reply.role,
        reply.applied,
        max(0, commit - reply.applied),
        reply.seq,
        reply.digest,
        reply.state_digest,
    )


def _silent(info: ServerInfo) -> ServerStatus:
    return ServerStatus(
        info.node, info.name, info.address, UNREACHABLE, None, None, None, None, None
    )
