"""The thread in which a server's commits run, so that a slow disk never stops its loop.

What is submitted while a sync runs goes to disk together, with one sync: group commit. No event
loop in here: the owner's callback wakes its loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from distinv.errors import StorageError
from distinv.storage.api import Record, Storage


class Committer(Protocol):
    """Where a driver hands its writes."""

    def submit(self, ticket: int, records: Sequence[Record]) -> None: ...

    def close(self) -> None: ...


class StorageThread:
    """Runs the commits of a recovered `storage`, in order.

    `done` is called from the thread: with the highest ticket that is durable, or once, as the
    last call, with the error after which nothing more will be. It must not block or raise.
    """

    __slots__ = ("_condition", "_done", "_is_closing", "_queue", "_storage", "_thread")

    def __init__(self, storage: Storage, done: Callable[[int | StorageError], None]) -> None:
        self._storage = storage
        self._done = done
        self._condition = threading.Condition()
        self._queue: list[tuple[int, Sequence[Record]]] = []
        """Bounded by what the core leaves unacknowledged; dropped when the storage fails."""
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="distinv-storage", daemon=True)
        self._thread.start()

    def submit(self, ticket: int, records: Sequence[Record]) -> None:
        """Commit `records` after all that was submitted before. Tickets increase. Never blocks.

        After a failure, or `close`, nothing happens: there will be no answer.
        """
        with self._condition:
            if not self._is_closing:
                self._queue.append((ticket, records))
                self._condition.notify()

    def close(self) -> None:
        """Commit what is still queued, then end the thread. The storage stays open."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            try:
                records = [record for _, part in batch for record in part]
                if records:
                    self._storage.commit(records)
            except Exception as error:
                self._give_up(error)
                return
            self._done(batch[-1][0])

    def _take(self) -> list[tuple[int, Sequence[Record]]]:
        """Everything queued, as soon as there is something; nothing at the end."""
        with self._condition:
            while not self._queue and not self._is_closing:
                self._condition.wait()
            batch, self._queue = self._queue, []
            return batch

    def _give_up(self, error: Exception) -> None:
        with self._condition:
            self._is_closing = True
            self._queue.clear()
        self._done(_as_failure(error))


class StorageInline:
    """The same without a thread, for a storage in memory: its commits wait for nothing.

    Then nothing happens beside the event loop, and a clock that jumps cannot run away from it.
    """

    __slots__ = ("_done", "_has_ended", "_storage")

    def __init__(self, storage: Storage, done: Callable[[int | StorageError], None]) -> None:
        self._storage = storage
        self._done = done
        self._has_ended = False

    def submit(self, ticket: int, records: Sequence[Record]) -> None:
        """Commit at once. After a failure, or `close`, nothing happens."""
        if self._has_ended:
            return
        try:
            if records:
                self._storage.commit(records)
        except Exception as error:
            self._has_ended = True
            self._done(_as_failure(error))
        else:
            self._done(ticket)

    def close(self) -> None:
        self._has_ended = True


def _as_failure(error: Exception) -> StorageError:
    """A broken plugin stops the server as cleanly as a bad disk."""
    if isinstance(error, StorageError):
        return error
    failure = StorageError(f"the storage failed: {error!r}")
    failure.__cause__ = error
    return failure
