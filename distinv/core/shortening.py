"""How the log loses its beginning: what the store holds durably, or a snapshot brought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.core.belonging import settle_birth
from distinv.core.candidate import Candidate
from distinv.core.events import Installed, InvariantBroken, StoreDurable

if TYPE_CHECKING:
    from distinv.core.node import Node


def on_store_durable(node: Node, event: StoreDurable) -> None:
    """Forget what the store holds durably, but for what others may still ask for."""
    limits, log = node.limits, node.log
    index = min(
        event.index,
        node.applied,
        node.durability.durable_index,
        log.dispensable(limits.log_keep_entries, limits.log_keep_bytes),
    )
    if index > log.base.index:
        base = log.base_at(index)
        node.record(base)
        log.compact(base)


def on_installed(node: Node, event: Installed) -> None:
    """A snapshot took the place of the store: the log goes on behind it."""
    base = event.base
    position = base.position
    if position.index <= node.commit:
        raise InvariantBroken(f"a snapshot at {position.index}, {node.commit} is committed")
    node.record(base)
    if event.touched:
        node.touch()
    if node.log.holds(position):
        node.log.compact(base)
    else:
        node.durability.truncated(position.index)
        node.log.install(base)
    if position.ballot > node.promised:
        # It is of a later ballot than the leader that sent for it; so is this log now.
        node.raise_promise(position.ballot)
        node.become_follower(None, node.leader_ballot)
    node.durability.installed(position.index)
    node.commit = node.applied = position.index
    node.commit_told = position.index
    node.tell(f"goes on from a snapshot at entry {position.index}")
    if isinstance(node.role, Candidate):
        # What it asked for, and what it said of its log, are of the past.
        node.become_follower(None, node.leader_ballot)
    node.tell_elector()
    if node.birth is not None:
        settle_birth(node, base.voters.cluster_id)
