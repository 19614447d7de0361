"""What a server and a client keep, by table, and how much of it there may be."""

from __future__ import annotations

from typing import Any

from distinv.client.session import ClientSession
from distinv.config import Limits
from distinv.core.candidate import Candidate
from distinv.core.leader import Leader
from distinv.server.engine import Engine
from distinv.wire.endpoint import Endpoint

SLACK = 64
"""What one batch of datagrams may add to a table before the turn that bounds it."""


def endpoint_sizes(endpoint: Endpoint) -> dict[str, int]:
    """Of the links of one process."""
    kept = urgent = unasked = 0
    for peer in endpoint._peers.values():
        urgent = max(urgent, len(peer.urgent))
        kept += peer._sender._flight_bytes + peer._sender._stream.waiting_bytes
        if peer._receiver is not None:
            kept += peer._receiver._parts_bytes + len(peer._receiver._stream._partial)
            unasked = max(unasked, len(peer._receiver._unasked))
    return {
        "peers": len(endpoint._peers),
        "timers": len(endpoint._timers),
        "touched": len(endpoint._touched),
        "noticed": len(endpoint._noticed),
        "strays": len(endpoint._strays),
        "answers": len(endpoint._answers),
        "urgent": urgent,
        "unasked": unasked,
        "link bytes": kept,
    }


def endpoint_bounds(limits: Limits) -> dict[str, int]:
    per_peer = (
        limits.link_queue_bytes
        + limits.link_window_bytes
        + limits.link_reorder_bytes
        + 2 * limits.message_bytes
    )
    return {
        "peers": limits.peers_max,
        "timers": limits.peers_max,
        "touched": limits.peers_max,
        "noticed": limits.notices_max,
        "unasked": 4 * limits.link_window_fragments,
        "link bytes": limits.peers_max * per_peer,
    }


def engine_sizes(engine: Engine) -> dict[str, int]:
    """Of a whole server, between two turns."""
    node, front = engine.node, engine.front
    sizes = {
        "clients": len(front._clients),
        "waiting": len(front._waiting),
        "opening": len(front._opening),
        "closing": len(front._closing),
        "in log": len(front._in_log),
        "reads": len(front._reads),
        "behind": len(front._behind),
        "errands": engine._errands._count,
        "seen servers": engine._presence.remembered[0],
        "told servers": engine._presence.roster.told,
        "alarmed": engine._presence.remembered[1],
        "twins asked": engine.twins.remembered[0],
        "twins placed": engine.twins.remembered[1],
        "last heard": len(node.voters_heard),
        "clocks": len(node.clocks._offsets),
        "voter sets": len(node.log.voter_indexes),
        "held": len(node.durability._held),
        "sessions": engine.machine.session_count,
        "orders": len(engine._orders._waiting),
        "takers": engine._upkeep.desk.takers,
        "other clusters": len(engine._dissolving._others),
    }
    if node.birth is not None:
        sizes["blanks"] = len(node.birth._blanks)
        sizes["refused"] = len(node.birth._refused)
    if isinstance(node.role, Leader):
        sizes["followers"] = len(node.role._peers)
        sizes["queue"] = len(node.role._queue)
        sizes["questions"] = len(node.role._questions)
        changes = node.role.changes
        sizes["wishes"] = len(changes._orders) + len(changes._transfers)
        sizes["leaving"] = len(changes._wishes)
    if isinstance(node.role, Candidate):
        sizes["promises"] = len(node.role._promises)
    return {**sizes, **endpoint_sizes(engine.endpoint)}


def engine_bounds(limits: Limits) -> dict[str, int]:
    commands, reads = limits.pending_commands, limits.pending_reads
    return {
        "clients": limits.peers_max,
        "waiting": commands,
        "opening": commands,
        "closing": commands,
        "in log": limits.sessions_max + commands,
        "reads": reads,
        "behind": reads,
        "errands": reads,
        "alarmed": limits.servers_max,
        "twins asked": limits.notices_max,
        "twins placed": limits.notices_max,
        "seen servers": limits.servers_max,
        "told servers": 2 * limits.servers_max,
        "last heard": limits.peers_max,
        "clocks": limits.peers_max,
        "sessions": limits.sessions_max,
        "orders": limits.servers_max,
        "wishes": 2 * limits.servers_max,
        "leaving": limits.servers_max + limits.voters_max,
        "takers": limits.snapshot_takers,
        "other clusters": limits.servers_max,
        "snapshot bytes": limits.snapshot_bytes_max,
        "blanks": limits.servers_max,
        "refused": limits.births_refused,
        "followers": limits.servers_max + limits.voters_max,
        "queue": 2 * commands,
        "questions": reads,
        "promises": limits.peers_max,
        **endpoint_bounds(limits),
    }


def session_sizes(session: ClientSession) -> dict[str, int]:
    """Of a client."""
    stream: Any = session._stream
    return {
        "calls": len(session._book),
        "waiting": len(stream._waiting),
        "window": len(stream._window),
        "again": len(stream._again),
        "servers": len(session._router.table),
        "probes": len(session._router._probes),
        "notices": len(session._notices),
        **endpoint_sizes(session._endpoint),
    }


def session_bounds(limits: Limits) -> dict[str, int]:
    return {
        "calls": limits.pending_commands + limits.pending_reads,
        "window": limits.session_window,
        "servers": limits.servers_max,
        "probes": limits.servers_max,
        "notices": 16,
        **endpoint_bounds(limits),
    }


def check(sizes: dict[str, int], bounds: dict[str, int]) -> None:
    """Assert that no table has outgrown its bound."""
    for name, size in sizes.items():
        bound = bounds.get(name)
        assert bound is None or size <= bound + SLACK, f"{name}: {size} of at most {bound}"
