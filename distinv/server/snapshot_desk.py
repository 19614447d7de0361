"""Giving this server's store to others, piece by piece, without remembering who they are.

A snapshot is made when somebody asks and there is none, beside the loop; it is kept while anybody
asks for it, and the log behind it with it: else whoever has installed it would be behind again.
A question is small and its answer is not, and a copy of the store is work: so whoever asks gets a
piece in its time, and what was copied is not soon copied again, whatever they say they have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distinv.config import Limits, Timing
from distinv.entry import NodeId, SnapshotHead
from distinv.wire.messages import SnapshotPart, SnapshotPull


class Snapshot(Protocol):
    """A finished copy of a store, to be read in pieces."""

    @property
    def head(self) -> SnapshotHead: ...
    def read(self, offset: int, size: int) -> bytes: ...
    def close(self) -> None: ...


class SnapshotDesk:
    """At most one snapshot at a time."""

    def __init__(self, make: Callable[[], Callable[[], Snapshot]], timing: Timing, limits: Limits):
        """`make`, called on the loop, returns what makes a snapshot in a thread."""
        self._make = make
        self._timing = timing
        self._limits = limits
        self._snapshot: Snapshot | None = None
        self._asked_at = 0
        self._making = False
        self._made_from = 0
        self._wanted = False
        self._rested_at = 0
        """Before that no other copy is begun."""
        self._given: dict[NodeId, int] = {}
        """Who got an answer just now, and when."""

    def on_pull(
        self, taker: NodeId, pull: SnapshotPull, *, base: int, applied: int, now: int
    ) -> SnapshotPart | None:
        """What is answered, if anything is: who asks too often, or as one too many, asks again.

        `base` is where this server's log begins, `applied` how far its store has come.
        """
        if not self._may_take(taker, now):
            return None
        self._asked_at = now
        snapshot = self._snapshot
        if snapshot is not None and not self._serves(snapshot, pull, base):
            if pull.above < applied and now >= self._rested_at:
                self._drop()
            snapshot = None
        if snapshot is None:
            self._wanted = self._wanted or pull.above < applied
            return SnapshotPart(None, 0, b"")
        head = snapshot.head
        offset = min(pull.offset, head.size_bytes) if pull.digest == head.digest else 0
        size = min(self._limits.snapshot_piece_bytes, head.size_bytes - offset)
        return SnapshotPart(head, offset, snapshot.read(offset, size))

    def _may_take(self, taker: NodeId, now: int) -> bool:
        pace_us = self._timing.snapshot_pace_us // 2  # their clocks may be faster than this one
        self._given = {each: at for each, at in self._given.items() if now - at < pace_us}
        if taker in self._given or len(self._given) >= self._limits.snapshot_takers:
            return False
        self._given[taker] = now
        return True

    @property
    def takers(self) -> int:
        """How many got an answer just now."""
        return len(self._given)

    def _serves(self, snapshot: Snapshot, pull: SnapshotPull, base: int) -> bool:
        index = snapshot.head.position.index
        return index >= base and index > pull.above

    def _drop(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
        self._snapshot = None

    def floor(self) -> int | None:
        """The log must not be forgotten behind this index: somebody is about to need it."""
        if self._making:
            return self._made_from
        return None if self._snapshot is None else self._snapshot.head.position.index

    def take_work(self, applied: int, now: int) -> Callable[[], Snapshot] | None:
        """What is to be run in a thread now, if anything; then call `made`, or `failed`.

        The copy will hold what is `applied` now, or more.
        """
        if not self._wanted or self._making or self._snapshot is not None:
            return None
        if now < self._rested_at:
            return None
        self._wanted, self._making, self._made_from = False, True, applied
        self._rested_at = now + self._timing.snapshot_rest_us
        return self._make()

    def made(self, snapshot: Snapshot, now: int) -> None:
        self._making = False
        self._snapshot = snapshot
        self._asked_at = now

    def failed(self) -> None:
        self._making = False

    def deadline(self) -> int | None:
        if self._snapshot is None:
            return None
        return self._asked_at + self._timing.link_idle_us

    def on_deadline(self, now: int) -> None:
        """Nobody asks any more."""
        due = self.deadline()
        if due is not None and now >= due:
            self._drop()
