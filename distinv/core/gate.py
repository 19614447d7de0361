"""What a leader may write, so that a cluster can be upgraded one server after the other.

A kind of entry that came with a later protocol is not appended before everybody who is to hold it
is known to speak that: every voter in every set in play, and every learner. Who has not said what
it speaks counts as the oldest there is. A server that still meets one, because it was put back to
an earlier release, stops (`Log.append`): it would else apply another history than the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.entry import KIND_SINCE, EntryKind, NodeId
from distinv.wire.frame import SPEAKS

if TYPE_CHECKING:
    from distinv.core.leader import Leader
    from distinv.core.node import Node


class Gate:
    """Of one leadership."""

    def __init__(self, node: Node, leader: Leader) -> None:
        self._node = node
        self._leader = leader
        self._since = node.now
        self._told: list[int] = []
        """Kinds that people know to be withheld."""
        self.protocol = SPEAKS[0]
        """The newest that everybody speaks."""
        self.look()

    def look(self) -> None:
        """Somebody has come, has gone, or has said what it speaks."""
        self.protocol = min([protocol for _, protocol in self._spoken()])

    def _spoken(self) -> list[tuple[NodeId, int]]:
        """What everybody speaks, as far as is known."""
        followers = [(peer, each.protocol) for peer, each in self._leader.followers]
        return [(self._node.self_id, self._node.protocol), *followers]

    def may_append(self, kind: EntryKind) -> bool:
        """Whether everybody could read an entry of this kind; people are told once who cannot."""
        needed = KIND_SINCE[kind]
        if needed <= self.protocol:
            return True
        node = self._node
        answered = node.now - self._since > node.timing.quorum_us  # or had the time to
        if answered and kind not in self._told:
            self._told.append(kind)
            names = [
                self._leader.name_of(server)
                for server, protocol in self._spoken()
                if protocol < needed
            ]
            node.tell(
                f"{kind.name} entries have to wait for servers that are not known to speak "
                f"protocol {needed}: {', '.join(names)}. Upgrade or remove them",
                "warning",
            )
        return False
