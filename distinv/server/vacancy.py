"""Since when a server has known of no leader that a quorum stands behind."""

from __future__ import annotations

from distinv.entry import NodeId


class Vacancy:
    """It begins when a leader is lost, or gives up, and ends with one that is followed, or serves.

    A leader serves when a majority has its first entry: being elected alone ends nothing, so a
    server that is elected again and again in vain has had no quorum since the first time.
    """

    def __init__(self, self_id: NodeId, now: int) -> None:
        self._self_id = self_id
        self._since: int | None = now

    def on_leader(self, leader: NodeId | None, *, serving: bool, now: int) -> None:
        """Somebody else leads, or nobody does."""
        if leader is None:
            self._since = now if self._since is None else self._since
        elif leader != self._self_id or serving:
            self._since = None

    def lasts_us(self, now: int) -> int:
        """0 while there is a leader; else at least 1."""
        return 0 if self._since is None else max(1, now - self._since)
