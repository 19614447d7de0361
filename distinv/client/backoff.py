"""How long to wait before the next try."""

from __future__ import annotations

from random import Random


class Backoff:
    """Exponential, with full jitter (Brooker, "Exponential Backoff and Jitter", AWS 2015)."""

    __slots__ = ("_ceiling_us", "_failures", "_floor_us", "_random")

    def __init__(self, random: Random, floor_us: int, ceiling_us: int) -> None:
        self._random = random
        self._floor_us = floor_us
        self._ceiling_us = ceiling_us
        self._failures = 0

    @property
    def failures(self) -> int:
        """Tries since the last reset."""
        return self._failures

    def pause_us(self) -> int:
        """Wait between nothing and the present span, which doubles each time."""
        return self._random.randrange(self._span_us() + 1)

    def interval_us(self) -> int:
        """The same for what must not be asked in quick succession: at least half the span."""
        span = self._span_us()
        return span // 2 + self._random.randrange(span // 2 + 1)

    def reset(self) -> None:
        self._failures = 0

    def _span_us(self) -> int:
        span = min(self._ceiling_us, self._floor_us << min(self._failures, 32))
        self._failures += 1
        return span
