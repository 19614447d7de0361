"""How a leader gives leadership to somebody else, in order.

It takes no more commands, lets its heir catch up with everything, and orders it to campaign. One
that has not taken over in time is given up, and the leader leads on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.core.progress import Mode
from distinv.entry import NodeId
from distinv.wire.messages import TransferOrder

if TYPE_CHECKING:
    from distinv.core.leader import Leader
    from distinv.core.node import Node


class HandOver:
    def __init__(self, node: Node, leader: Leader) -> None:
        self._node = node
        self._leader = leader
        self.target: NodeId | None = None
        self.until: int | None = None
        """When the target has had its time."""
        self.ordered = False
        self._ordered_at = 0
        self._since = node.now
        """Of this leadership, or of the last time that it was offered to a higher id."""

    def begin(self, target: NodeId | None) -> None:
        """Hand over to `target`, without one to the best successor there is."""
        node = self._node
        if self.target is not None:
            return
        if target is None:
            target = self.best_successor()
        if target is None or target not in node.other_voters():
            node.tell("nobody to hand leadership over to", "warning")
            return
        node.tell(f"handing leadership over to {node.name_of(target)}")
        self.target, self.until = target, node.now + node.timing.transfer_us
        self.ordered, self._ordered_at = False, node.now - node.timing.heartbeat_us
        self.pursue()

    def best_successor(self) -> NodeId | None:
        """Who answered the last heartbeats before who did not, then who has most of the log."""
        node, leader = self._node, self._leader
        alive, recent = node.now - 2 * node.timing.heartbeat_us, node.now - node.timing.quorum_us
        ranked = []
        for peer in node.other_voters():
            progress = leader.progress_of(peer)
            assert progress is not None, "a voter whom the leader does not serve"
            if progress.last_heard > recent:
                ranked.append((progress.last_heard > alive, progress.verified, peer))
        return max(ranked)[2] if ranked else None

    def maybe_give_way(self) -> None:
        """With `preempt`: a higher id takes over, in order, once it has everything and is alive."""
        node, leader = self._node, self._leader
        if not node.preempt or self.target is not None or not leader.serving:
            return
        settled = node.now - self._since > node.timing.suspect_ceiling_us
        for peer in reversed(node.other_voters()):
            progress = leader.progress_of(peer)
            assert progress is not None, "a voter whom the leader does not serve"
            alive = node.now - progress.last_heard < node.timing.suspect_floor_us
            if peer > node.self_id and settled and alive and progress.mode is Mode.STREAM:
                self._since = node.now  # not again at once, should it not work out
                self.begin(peer)
                return

    def pursue(self) -> None:
        """Order the heir to take over, once it has everything."""
        node, target = self._node, self.target
        if target is None or self._leader.queued:
            return
        progress = self._leader.progress_of(target)
        if progress is None or progress.verified < node.log.last_index:
            return
        if node.now - self._ordered_at >= node.timing.heartbeat_us:
            self.ordered = True
            self._ordered_at = node.now
            node.send(target, TransferOrder(self._leader.ballot))

    def on_time(self) -> None:
        node = self._node
        if self.until is not None and node.now >= self.until:
            node.tell("the hand-over did not happen: leading on", "warning")
            self.target = self.until = None
            self.ordered = False
            self._leader.changes.on_hand_over_called_off()
        self.pursue()
