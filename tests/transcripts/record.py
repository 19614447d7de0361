"""The lines of one command, and how long to wait for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_MS = 5
"""When there was nothing to tell for so long, all that was under way has arrived."""

PATIENCE_MS = 20_000
"""What has not come by then does not come."""


class Record:
    """Lines as they happen, with the silences between them."""

    def __init__(self, clock: Callable[[], int], *, gap_us: int = 10_000) -> None:
        """A silence of `gap_us` or longer within one command is told."""
        self.lines: list[str] = []
        self.said = 0
        """Lines since the beginning of the scene, those that were not wanted too."""
        self._silent = False
        self._clock = clock
        self._gap_us = gap_us
        self._last_at = 0

    def begin(self) -> None:
        """The next command."""
        self.lines = []
        self._last_at = self._clock()

    def say(self, text: str) -> None:
        now = self._clock()
        self.said += 1
        if not self._silent:
            if now - self._last_at >= self._gap_us:
                self.lines.append(f"… {(now - self._last_at) // 1_000} ms later")
            self.lines.append(text)
        self._last_at = now

    @contextmanager
    def silence(self) -> Iterator[None]:
        """What happens within is not told."""
        before, self._silent = self._silent, True
        try:
            yield
        finally:
            self._silent = before


def settle(record: Record, run: Callable[[int], object]) -> None:
    """Let time pass (`run` takes milliseconds) until there is nothing more to tell."""
    quiet_ms = passed_ms = 0
    while quiet_ms < QUIET_MS:
        assert passed_ms < PATIENCE_MS, "it does not become quiet"
        said = record.said
        run(1)
        passed_ms += 1
        quiet_ms = quiet_ms + 1 if record.said == said else 0
