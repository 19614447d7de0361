"""Is the leader gone, or am I slow?

`FailureDetector` is adaptive: the time-out follows the mean time between arrivals (three times,
between a floor and a ceiling), after Chen, Toueg and Aguilera (2002) in its simplest form.
`LocalHealth` widens it while this process itself runs late, after Lifeguard (Dadgar, Phillips,
Currey 2017): a pause of one's own event loop must not look like somebody else's death.
"""

from __future__ import annotations

from distinv.config import Timing

_WEIGHT = 8
"""Each arrival moves the mean by an eighth of the difference."""

_TIMES_MEAN = 3
_SCORE_MAX = 4


class LocalHealth:
    """A score from 0 (on time) to 4 (late again and again)."""

    def __init__(self, timing: Timing) -> None:
        self._late_us = timing.heartbeat_us
        self._decay_us = timing.suspect_ceiling_us
        self.score = 0
        self._worsened_at = 0

    def observe(self, due: int, now: int) -> int:
        """The node was due at `due` and runs at `now`. How late, if that is bad, or 0."""
        late_us = now - due
        if late_us > self._late_us:
            self.score = min(_SCORE_MAX, self.score + 1)
            self._worsened_at = now
            return late_us
        if self.score and now - self._worsened_at > self._decay_us:
            self.score -= 1
            self._worsened_at = now
        return 0


class FailureDetector:
    """Follows the heartbeats of one leader."""

    def __init__(self, timing: Timing, health: LocalHealth) -> None:
        self._timing = timing
        self._health = health
        self._mean_us = timing.heartbeat_us
        self.last_heard: int | None = None
        self.refused_at: int | None = None
        """When the kernel said that the leader's process is gone; a heartbeat refutes that."""

    def reset(self) -> None:
        """A new leader: nothing is known of it."""
        self._mean_us = self._timing.heartbeat_us
        self.last_heard = None
        self.refused_at = None

    def heard(self, now: int) -> None:
        if self.last_heard is not None:
            interval = min(now - self.last_heard, self._timing.suspect_ceiling_us)
            self._mean_us += (interval - self._mean_us) // _WEIGHT
        self.last_heard = now
        self.refused_at = None

    def excuse(self, late_us: int, now: int) -> None:
        """This process slept for so long: that was no silence of the leader."""
        if self.last_heard is not None:
            self.last_heard = min(self.last_heard + late_us, now)

    @property
    def timeout_us(self) -> int:
        timing = self._timing
        adaptive = max(timing.suspect_floor_us, _TIMES_MEAN * self._mean_us)
        return min(timing.suspect_ceiling_us, adaptive * (2 + self._health.score) // 2)

    def deadline(self) -> int | None:
        """When the leader becomes suspect."""
        if self.last_heard is None:
            return None
        late_at = self.last_heard + self.timeout_us
        return late_at if self.refused_at is None else min(late_at, self.refused_at)

    def hears(self, now: int) -> bool:
        deadline = self.deadline()
        return deadline is not None and now < deadline
