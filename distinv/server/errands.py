"""Work that takes longer than a turn may: it is done beside the loop, and its askers wait.

An errand touches nothing of the engine while it runs. One of a kind runs at a time; whoever
asks meanwhile shares the next one, which sees everything applied before it began.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

Then: TypeAlias = Callable[[Any, int], None]
"""Called between turns with the result and the time in microseconds."""


@frozen
class Errand:
    """Call `run` in a thread, then one of the others, between two turns."""

    run: Callable[[], Any]
    finish: Then
    """Takes the result and the time in microseconds."""
    fail: Callable[[], None]
    """Nobody is answered; who still wants to know asks again."""
    fatal: bool = False
    """A failure stops the server: its own store cannot be trusted any more."""


class Errands:
    """Who waits for what. A kind is the question itself."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._waiting: dict[bytes, list[Then]] = {}
        self._running: dict[bytes, list[Then]] = {}

    def ask(self, kind: bytes, then: Then) -> bool:
        """False: too many wait already."""
        if self._count >= self._limit:
            return False
        self._count += 1
        self._waiting.setdefault(kind, []).append(then)
        return True

    def take(self, start: Callable[[bytes], Callable[[], Any]]) -> list[Errand]:
        """The errands to run now; `start` makes the work of a kind."""
        if not self._waiting:
            return []
        kinds = [kind for kind in self._waiting if kind not in self._running]
        return [self._begin(kind, start(kind)) for kind in kinds]

    def _begin(self, kind: bytes, work: Callable[[], Any]) -> Errand:
        self._running[kind] = self._waiting.pop(kind)

        def end() -> list[Then]:
            askers = self._running.pop(kind)
            self._count -= len(askers)
            return askers

        def finish(result: Any, now: int) -> None:
            for then in end():
                then(result, now)

        def fail() -> None:
            end()

        return Errand(work, finish, fail)
