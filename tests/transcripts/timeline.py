"""Virtual time for stages that have no `Scene`: what is planned happens in order."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MS = 1_000


class Timeline:
    def __init__(self) -> None:
        self.now = 1_000_000
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (max(time, self.now), self._count, call, arguments))

    def after(self, delay_us: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay_us, call, *arguments)

    def run(self, ms: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds."""
        end = self.now + ms * MS
        while self._heap and self._heap[0][0] <= end:
            at, _, call, arguments = heappop(self._heap)
            self.now = at
            call(*arguments)
            if until is not None and until():
                return True
        self.now = end
        return until is not None and until()
