"""The home owes an answer and says nothing: when to ask it again, and when it counts as gone."""

from __future__ import annotations

from distinv.config import Timing


class Silence:
    """Of one home after the other; the router does the asking."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self.owed_since: int | None = None
        """Since when an answer has been owed, whatever was heard meanwhile."""
        self._pinged_at = 0
        self._probed = False

    def owe(self, now: int) -> None:
        if self.owed_since is None:
            self.owed_since = now
            self._probed = False

    def end(self) -> None:
        """Nothing is owed, or the home is another."""
        self.owed_since = None

    def forgive(self, now: int) -> None:
        """This process itself stood still: a silence until now proves nothing (Dadgar, Phillips
        and Currey, "Lifeguard", 2017)."""
        if self.owed_since is not None:
            self.owed_since = now

    def since(self, heard_at: int | None) -> int | None:
        """Since when an answer has been owed and nothing was heard."""
        owed_since = self.owed_since
        if owed_since is None or heard_at is None:
            return owed_since
        return owed_since if heard_at < owed_since else heard_at

    def probes(self, since: int, now: int) -> bool:
        """The kernel should be asked whether anybody listens there; true once in a silence."""
        if now - since < 2 * self._timing.client_ping_us:
            self._probed = False
            return False
        first, self._probed = not self._probed, True
        return first

    def is_too_long(self, since: int, now: int) -> bool:
        return now - since >= self._timing.client_silence_us

    def pings(self, since: int, now: int) -> bool:
        """It should be asked whether it lives."""
        if now < self._ping_at(since):
            return False
        self._pinged_at = now
        return True

    def _ping_at(self, since: int) -> int:
        """Twice as often once a ping was not answered: on a lossy line it was probably lost."""
        interval_us = self._timing.client_ping_us
        if self._pinged_at > since:
            return self._pinged_at + interval_us // 2
        return since + interval_us

    def due_at(self, since: int) -> int:
        """When any of this is to be looked at again."""
        timing = self._timing
        ping_at, silent_at = self._ping_at(since), since + timing.client_silence_us
        first = ping_at if ping_at < silent_at else silent_at
        return first if self._probed else min(first, since + 2 * timing.client_ping_us)
