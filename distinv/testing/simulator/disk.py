"""A simulated server's disk: syncs take time, stall or fail, and stored entries rot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random

from distinv.entry import Entry
from distinv.errors import StorageError
from distinv.storage.api import Record, Recovered
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.world import World


class Disk:
    """What survives a crash of its server, and what does not."""

    def __init__(self, world: World, name: str, sync_us: int) -> None:
        self._world = world
        self._random = Random(f"disk of {name} {world.seed} {world.plan.stream}")
        self.sync_us = sync_us
        """A sync takes between half and three times as long."""
        self._storage = MemoryStorage()
        self._life = 0
        self._synced: Callable[[int], None] = _nobody
        self._syncing = False
        self._staged: list[tuple[int, int]] = []
        """(engine's ticket, storage's ticket) of writes not durable yet."""
        self.stalled_until = 0
        self.full_until = 0
        self.rotten = False

    def format(self, records: Sequence[Record]) -> None:
        """Put them there before the run begins."""
        self._storage.recover()
        self._storage.commit(records)
        self._storage.crash()

    def commit(self, records: Sequence[Record]) -> None:
        """Write at once, before the server runs."""
        self._storage.commit(records)

    def wipe(self) -> None:
        """A new disk, in the place of one that is lost with everything on it."""
        self._life += 1
        self._storage = MemoryStorage()
        self._syncing, self.rotten = False, False
        self._staged.clear()
        self.stalled_until = self.full_until = 0

    def copy(self, other: Disk) -> None:
        """Hold what the other one holds durably now."""
        self._storage = deepcopy(other._storage)
        self._storage.crash()

    def recover(self, synced: Callable[[int], None]) -> Recovered:
        """Read everything; `synced(ticket)` will be called for writes. Raises CorruptLog."""
        self._synced = synced
        return self._storage.recover()

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Durable entries. Raises CorruptLog for one that has rotted."""
        return self._storage.read(first, last, max_bytes)

    @property
    def last_index(self) -> int:
        """Where the durable log ends."""
        return self._storage.last_index

    @property
    def writing(self) -> int:
        """How many writes are under way."""
        return len(self._staged)

    def write(self, ticket: int, records: tuple[Record, ...]) -> None:
        """Begin a write. Raises StorageError when the disk is full: nothing of it is kept."""
        if self._world.now < self.full_until:
            self._storage.fail("the disk is full")
            raise StorageError("the disk is full")
        self._staged.append((ticket, self._storage.stage(records)))
        if not self._syncing:
            self._start_sync()

    def stall(self, until: int) -> None:
        """No write ends before that."""
        self.stalled_until = max(self.stalled_until, until)

    def rot(self, place: float) -> int:
        """Flip a bit in the stored entry at that part of the log; returns its index, or 0."""
        base = self._storage.base_index
        index = base + int(place * (self.last_index - base)) + 1
        if index > self.last_index:
            return 0
        self._storage.flip(index)
        self.rotten = True
        return index

    def crash(self, kept: int) -> None:
        """Lose what was not synced but for the first `kept` writes; one is torn, perhaps."""
        self._life += 1
        self._syncing = False
        self._staged.clear()
        self._storage.crash(kept, torn=self._random.random() < 0.5)

    def _start_sync(self) -> None:
        self._syncing = True
        ticket, stored = self._staged[-1]
        lasts = int(self.sync_us * self._random.uniform(0.5, 3.0))
        self._world.after(lasts, self._end_sync, self._life, ticket, stored)

    def _end_sync(self, life: int, ticket: int, stored: int) -> None:
        if life != self._life:
            return
        if self._world.now < self.stalled_until:
            self._world.at(self.stalled_until, self._end_sync, life, ticket, stored)
            return
        self._storage.make_durable(stored)
        self._staged = [each for each in self._staged if each[0] > ticket]
        self._syncing = False
        if self._staged:
            self._start_sync()
        self._synced(ticket)


def _nobody(ticket: int) -> None:
    """Before the first recovery nobody waits for a write."""
