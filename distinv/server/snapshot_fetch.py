"""Getting another server's store: this side asks for piece after piece.

The giver remembers nothing of whom it gives to, so whoever asks decides how fast it goes, and goes
on where it was after a pause, a lost link, or (what was received is kept) a restart of its own.
"""

from __future__ import annotations

from typing import Protocol

from distinv.config import Limits, Timing
from distinv.entry import NodeId, SnapshotHead
from distinv.wire.messages import SnapshotPart, SnapshotPull


class Pieces(Protocol):
    """Where the pieces are kept until the snapshot is whole."""

    def resume(self) -> tuple[SnapshotHead, int] | None:
        """What was begun, and how many bytes of it are there; None when nothing was."""
        ...

    def begin(self, head: SnapshotHead) -> None:
        """Forget what was begun; `head` is what comes. Raises StorageError."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """The next piece. Raises StorageError."""
        ...


class Fetch:
    """One snapshot at a time, from one server at a time."""

    def __init__(self, pieces: Pieces, timing: Timing, limits: Limits) -> None:
        self._pieces = pieces
        self._timing = timing
        self._limits = limits
        self._source: NodeId | None = None
        self._head: SnapshotHead | None = None
        self._offset = 0
        self._wanted_from = 0
        """A snapshot below this index is of no use."""
        self._ask_at = 0
        self._asked = False
        self._give_up_at = 0
        self._rest_us = timing.snapshot_rest_us
        self._rest_until = 0
        self.complete: SnapshotHead | None = None
        """All of it is there, to be looked at and installed."""

    @property
    def under_way(self) -> bool:
        return self._source is not None

    def want(self, source: NodeId, above: int, now: int) -> None:
        """A snapshot of `source` is needed, one that reaches beyond entry `above`."""
        if self.complete is not None:
            return
        self._wanted_from = above
        if self._source == source:
            return
        if self._source is None:
            begun = self._pieces.resume()
            if begun is not None and begun[0].position.index > above:
                self._head, self._offset = begun
        self._source = source
        self._ask_at, self._asked = max(now, self._rest_until), False
        self._give_up_at = self._ask_at + self._timing.link_idle_us

    def refuse(self, now: int) -> int:
        """What was received is no good here. The next one may be no better, of a later format for
        instance: it has time. Returns how long the rest is."""
        self.stop()
        rest_us, self._rest_us = self._rest_us, self._rest_us * 2
        self._rest_us = min(self._rest_us, self._timing.snapshot_rest_ceiling_us)
        self._rest_until = now + rest_us
        return rest_us

    def installed(self) -> None:
        """It is this server's store now."""
        self.stop()
        self._rest_us = self._timing.snapshot_rest_us

    def stop(self) -> None:
        """It is not needed any more. What was received may still be resumed."""
        self._source = self._head = self.complete = None
        self._offset = 0

    def deadline(self) -> int | None:
        return self._ask_at if self._source is not None and self.complete is None else None

    def on_deadline(self, commit: int, now: int) -> tuple[NodeId, SnapshotPull] | None:
        """The question to send, if it is time. `commit`: up to there the own log has come."""
        if self._source is None or self.complete is not None or now < self._ask_at:
            return None
        if now >= self._give_up_at or commit > self._wanted_from:  # then entries come after all
            self.stop()
            return None
        self._asked = True
        self._ask_at = now + self._timing.client_answer_us  # unless it answers
        digest = b"" if self._head is None else self._head.digest
        return self._source, SnapshotPull(digest, self._offset, self._wanted_from)

    def on_part(self, source: NodeId, part: SnapshotPart, now: int) -> str:
        """A piece, or the word that the snapshot is still being made.

        Returns what is wrong with the snapshot, if that ends it. Raises StorageError.
        """
        if source != self._source or not self._asked or self.complete is not None:
            return ""
        self._asked = False  # one answer each: a flood of them neither writes nor puts off
        head = part.head
        if head is None:
            self._ask_at = now + self._timing.retry_us
            self._give_up_at = now + self._timing.link_idle_us
            return ""
        if head.position.index <= self._wanted_from:
            self._ask_at = now + self._timing.retry_us
            return ""
        if not 0 < head.size_bytes <= self._limits.snapshot_bytes_max:
            self.refuse(now)
            most = self._limits.snapshot_bytes_max
            return f"has a snapshot of {head.size_bytes} bytes, at most {most} fit"
        self._take(head, part, now)
        return ""

    def _take(self, head: SnapshotHead, part: SnapshotPart, now: int) -> None:
        if self._head != head:
            self._pieces.begin(head)
            self._head, self._offset = head, 0
        if part.offset == self._offset and part.data:
            piece = part.data[: head.size_bytes - self._offset]
            self._pieces.write(self._offset, piece)
            self._offset += len(piece)
            self._give_up_at = now + self._timing.link_idle_us
        if self._offset == head.size_bytes:
            self.complete = head
        else:
            self._ask_at = now + self._timing.snapshot_pace_us
