"""Two clusters of one name have met: one without client commands gives way to the other.

Nothing is ever merged. A cluster that holds a client command stays, whatever it meets; of two that
hold none, the one with the higher id gives way. It does so by a last entry: once that is
committed, no leader of it can be without it, and none takes a command behind it, so nothing that
anybody was told is lost. Until then a new leader without it undoes it, as any other entry.

Whoever has applied the entry is done with this cluster; the runtime sets what it has aside and
begins anew. A leader goes last of those it reaches: they learn from it that the entry is committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.core import belonging
from distinv.core.events import ClusterGone, OtherClusterMet
from distinv.core.leader import Leader
from distinv.entry import EntryKind, Successor, decode_successor

if TYPE_CHECKING:
    from distinv.core.node import Node


def on_met(node: Node, event: OtherClusterMet) -> None:
    """Another cluster of this name has just shown that it lives."""
    role = node.role
    if not isinstance(role, Leader) or not _gives_way(node, event):
        return
    if role.gate.may_append(EntryKind.DISSOLVED):
        node.tell(
            f"dissolving this cluster, which holds nothing of any client, for "
            f"{event.cluster_id:016x} (server {event.server_name})",
            "warning",
        )
        role.append_dissolved(Successor(event.cluster_id, event.server_name))


def may_give_way(node: Node) -> bool:
    """This server leads a cluster without client commands, and nothing else is under way in it."""
    role = node.role
    return (
        isinstance(role, Leader)
        and role.serving
        and not node.touched
        and node.log.dissolved is None
        and not role.queued
        and not role.handing_over
        and node.commit == node.log.last_index
    )


def _gives_way(node: Node, event: OtherClusterMet) -> bool:
    current = node.membership.current()
    assert current is not None, "leads without voters"
    own, other = current.cluster_id, event.cluster_id
    return may_give_way(node) and other not in (0, own) and (event.touched or other < own)


def gives_way_to(node: Node) -> Successor | None:
    """Who goes on instead of this cluster, once nobody here needs this server any more."""
    entry = node.log.dissolved
    if entry is None or node.applied < entry.index:
        return None
    if isinstance(node.role, Leader) and node.role.has_to_tell(entry.index):
        return None
    return decode_successor(entry.payload)


def on_gone(node: Node, event: ClusterGone) -> None:
    if node.birth is not None:
        belonging.do_birth(node, node.birth.on_gone(event.cluster_id, node.now))
