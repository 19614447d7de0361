"""What a leader knows of one follower, and how it serves it."""

from __future__ import annotations

from enum import Enum

from attrs import define

from distinv.wire.frame import SPEAKS


class Mode(Enum):
    """How one follower is served."""

    PROBE = "probe"
    """Where it stands is not known: it is asked, when it shows that it lives."""
    CATCH_UP = "catch up"
    """It gets chunks, one at a time, each after the one before is acknowledged."""
    STREAM = "stream"
    """It gets every batch by multicast as it is appended."""


@define
class Progress:
    """What the leader knows of one follower in this ballot."""

    mode: Mode
    last_heard: int
    progressed_at: int
    verified: int = 0
    """The highest acknowledged index: durable there and verified against this log."""
    sent: int = 0
    """The last index sent, while catching up."""
    covered: int = 0
    """The last index sent together, when what was missing went at once."""
    commit: int = 0
    round: int = 0
    probed_at: int = -1_000_000_000
    streams_since: int | None = None
    """Since when it has kept up with every batch."""
    name: str = ""
    """What a server without a vote calls itself."""
    protocol: int = SPEAKS[0]
    """The newest that it speaks; until it has said so, the oldest there is."""
    abstains: bool | None = None
    """Without a vote, it takes none but by order, as it said itself; None: it has not said."""

    def enter(self, mode: Mode, now: int) -> None:
        self.mode = mode
        if mode is not Mode.STREAM:
            self.streams_since = None
        elif self.streams_since is None:
            self.streams_since = now

    def streams_for_us(self, now: int) -> int:
        return -1 if self.streams_since is None else now - self.streams_since
