"""What is to be said again only after a while, to or about each of a bounded number."""

from __future__ import annotations

from collections.abc import Hashable


class Seldom:
    def __init__(self, interval_us: int, most: int) -> None:
        self._interval_us = interval_us
        self._most = most
        self._said: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._said)

    def may_say(self, about: Hashable, now: int) -> bool:
        """Whether it is time; then it counts as said.

        About more than that many at a time nothing is said: so many are somebody's mischief.
        """
        last = self._said.get(about)
        if last is not None and now - last < self._interval_us:
            return False
        if last is None and len(self._said) >= self._most:
            oldest = min(self._said, key=self._said.__getitem__)
            if now - self._said[oldest] < self._interval_us:
                return False
            del self._said[oldest]
        self._said[about] = now
        return True
