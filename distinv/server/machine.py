"""What a server needs of the state machine that the log drives.

`distinv.inventory` implements it; another replicated application could.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from distinv.entry import Entry, Position


class Applied(Protocol):
    """What one command of an entry came to."""

    @property
    def session(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def nonce(self) -> int: ...
    @property
    def result(self) -> bytes: ...
    @property
    def kind(self) -> str:
        """opened, result, expired, gap, closed, or dropped: a duplicate whose result is gone."""
        ...


class Digest(Protocol):
    """The fingerprint of what users see."""

    @property
    def seq(self) -> int: ...
    @property
    def value(self) -> str: ...


class Machine(Protocol):
    """A deterministic function of the committed log."""

    @property
    def position(self) -> Position: ...
    @property
    def seq(self) -> int: ...
    @property
    def session_count(self) -> int: ...
    @property
    def touched(self) -> bool:
        """Clients have left something in it: a command, or a session."""
        ...

    def apply(self, entry: Entry) -> Sequence[Applied]: ...
    def last_number(self, session: int) -> int | None: ...
    def result(self, session: int, number: int) -> bytes | None: ...
    def session_of_nonce(self, nonce: int) -> int | None: ...
    def query(self, data: bytes) -> bytes: ...
    def takes_long(self, data: bytes) -> bool:
        """Whether to have a question answered by `long_reader`, not by `query`."""
        ...

    def long_reader(self, data: bytes) -> Callable[[], bytes]:
        """What answers a question that takes long, in any thread, from this state or a later."""
        ...

    def digest_reader(self) -> Callable[[], Digest]:
        """What computes the fingerprint, in any thread, of this state or a later one."""
        ...

    @property
    def checkpoint_due(self) -> bool:
        """Enough was applied for a `checkpointer` to be worth its while."""
        ...

    def checkpointer(self) -> Callable[[], Position]:
        """What brings the store to disk by itself, in any thread: up to where it is there.

        After a StorageError of it nothing of the store may be trusted.
        """
        ...

    def flush(self) -> None: ...
    def abandon(self) -> None:
        """Close without flushing: something else takes its place."""
        ...

    def state_digest(self) -> str: ...
    def close(self) -> None: ...
