"""What is on disk, and what must wait for it (invariants 1, 2, 6, 7).

A node hands out one `Write` per turn under the next *ticket*; writes become durable in order.
Messages that make a promise are held under the ticket of the write behind them.
"""

from __future__ import annotations

from collections import deque

from attrs import define

from distinv.core.events import Effect, Write
from distinv.storage.api import Record


@define
class _Pending:
    ticket: int
    last_index: int


class Durability:
    """Tickets, held effects, and the last durable index of the log as it is now."""

    def __init__(self, durable_index: int) -> None:
        self.durable_index = durable_index
        self.open_ticket = 1
        self.durable_ticket = 0
        self._records: list[Record] = []
        self._pending: deque[_Pending] = deque()
        self._held: deque[tuple[int, Effect]] = deque()
        self._busy_since = 0
        """While there are writes: since when the disk has been at the first of them."""

    @property
    def writing(self) -> int:
        """How many writes are under way."""
        return len(self._pending)

    def record(self, record: Record) -> None:
        self._records.append(record)

    def hold(self, effect: Effect) -> Effect | None:
        """Keep `effect` until everything recorded so far is durable; if it is, give it back."""
        ticket = self.open_ticket if self._records else self.open_ticket - 1
        if ticket <= self.durable_ticket:
            return effect
        self._held.append((ticket, effect))
        return None

    def truncated(self, index: int) -> None:
        """What lies after `index` is gone: no pending write vouches for it."""
        self.durable_index = min(self.durable_index, index)
        for pending in self._pending:
            pending.last_index = min(pending.last_index, index)

    def installed(self, index: int) -> None:
        """The store holds everything up to `index` durably, whatever is still being written.

        Where the log behind that went another way, it is `truncated` to there first.
        """
        self.durable_index = max(self.durable_index, index)
        for pending in self._pending:
            pending.last_index = max(pending.last_index, index)

    def take_write(self, last_index: int, now: int) -> Write | None:
        """The turn's write, or None when there is nothing to write."""
        if not self._records:
            return None
        write = Write(self.open_ticket, tuple(self._records))
        if not self._pending:
            self._busy_since = now
        self._pending.append(_Pending(self.open_ticket, last_index))
        self._records.clear()
        self.open_ticket += 1
        return write

    def persisted(self, ticket: int, now: int) -> list[Effect]:
        """Writes up to `ticket` are durable; returns what was held for them."""
        while self._pending and self._pending[0].ticket <= ticket:
            self.durable_index = self._pending.popleft().last_index
        self._busy_since = now  # only now is it the next one's turn
        self.durable_ticket = max(self.durable_ticket, ticket)
        released: list[Effect] = []
        while self._held and self._held[0][0] <= ticket:
            released.append(self._held.popleft()[1])
        return released

    def excuse(self, late_us: int, now: int) -> None:
        """This process slept for so long: that was no silence of the disk."""
        self._busy_since = min(self._busy_since + late_us, now)

    def oldest_write_us(self, now: int) -> int:
        """For how long the disk has been at the oldest write, and has finished none."""
        return now - self._busy_since if self._pending else 0
