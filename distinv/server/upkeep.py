"""What a store asks for beside the loop: checkpoints, so that the log may lose its beginning;
copies for servers that lack it; and pieces of another server's, when this one does.
"""

from __future__ import annotations

from collections.abc import Callable

from distinv.config import Limits, Timing
from distinv.core.node import Node
from distinv.entry import NodeId, Position, SnapshotHead
from distinv.server.errands import Errand
from distinv.server.machine import Machine
from distinv.server.snapshot_desk import Snapshot, SnapshotDesk
from distinv.server.snapshot_fetch import Fetch, Pieces
from distinv.wire.messages import SnapshotPart, SnapshotPull


class Upkeep:
    """Of one server's store, for as long as it belongs to one cluster."""

    def __init__(
        self,
        node: Node,
        make_copy: Callable[[], Callable[[], Snapshot]],
        pieces: Pieces,
        timing: Timing,
        limits: Limits,
        on_durable: Callable[[int, int], None],
    ) -> None:
        """`make_copy`, called on the loop, returns what copies the store in a thread. `on_durable`
        is told up to which entry nobody needs the log any more, and the time."""
        self._node = node
        self._timing = timing
        self._limits = limits
        self._on_durable = on_durable
        self.desk = SnapshotDesk(make_copy, timing, limits)
        self.fetch = Fetch(pieces, timing, limits)
        self._look_at = node.now + timing.compact_us
        self._checkpointing = False

    def take_errands(self, machine: Machine, now: int) -> list[Errand]:
        """What is to be done in threads now."""
        errands = []
        copy = self.desk.take_work(machine.position.index, now)
        if copy is not None:
            errands.append(Errand(copy, self.desk.made, self.desk.failed))
        if not self._checkpointing and self._checkpoint_due(machine, now):
            self._checkpointing = True
            errands.append(Errand(machine.checkpointer(), self._checkpointed, _nothing, fatal=True))
        return errands

    def _checkpoint_due(self, machine: Machine, now: int) -> bool:
        """The store has written much since the last one, or the log could lose its beginning."""
        if now >= self._look_at:
            self._look_at = now + self._timing.compact_us
            if self._node.log.dispensable_now(self._limits):
                return True
        return machine.checkpoint_due

    def _checkpointed(self, position: Position, now: int) -> None:
        self._checkpointing = False
        floor = self.desk.floor()
        self._on_durable(position.index if floor is None else min(position.index, floor), now)

    def on_pull(
        self, taker: NodeId, pull: SnapshotPull, applied: int, now: int
    ) -> SnapshotPart | None:
        """The answer to another server's question, if it gets one."""
        if self._node.birth is not None:
            return None
        base = self._node.log.base.index
        return self.desk.on_pull(taker, pull, base=base, applied=applied, now=now)

    def want(self, source: NodeId, now: int) -> None:
        """This server's log begins behind what it has: get the store of `source`."""
        if not self.fetch.under_way:
            self._node.tell(f"asks {self._node.name_of(source)} for a snapshot")
        self.fetch.want(source, self._node.commit, now)

    def on_part(self, source: NodeId, part: SnapshotPart, now: int) -> None:
        """A piece of it."""
        problem = self.fetch.on_part(source, part, now)
        if problem:
            self._node.tell(f"{self._node.name_of(source)} {problem}", "error")

    @property
    def received(self) -> SnapshotHead | None:
        """A snapshot of which every byte is there."""
        return self.fetch.complete

    def on_deadline(self, now: int) -> tuple[NodeId, SnapshotPull] | None:
        """The question to be sent, if it is time for one."""
        self.desk.on_deadline(now)
        return self.fetch.on_deadline(self._node.commit, now)


def _nothing() -> None:
    """For an errand whose failure stops the server."""
