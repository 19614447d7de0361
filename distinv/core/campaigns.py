"""What a node knows of campaigns, its own and others', since a leader was last heard."""

from __future__ import annotations

from attrs import define

_DOUBLINGS_MAX = 3
"""A campaign is two exchanges and two writes, each of which may take a second (`disk_stall_us`)."""


@define(eq=False)
class Campaigns:
    quiet_until: int
    """Another campaign has its time, or the own one failed: none is begun before."""
    late_until: int
    """Having slept, this node listens before it campaigns; but not again and again, or slow
    machines would never have a leader."""
    failed: int = 0
    """Own and others'."""
    turn_at: int | None = None
    """When to campaign if nobody leads until then; None once somebody has led, or this node has
    campaigned."""
    passed_over: int = 0
    """Others' that it has waited for since then."""
    forfeited: bool = False
    """One was left to a fresher server."""

    def on_leader(self, now: int) -> None:
        """Somebody leads: whoever had that time."""
        self.failed = 0
        self.forfeited = False
        self.quiet_until = now

    def patience_us(self, time_us: int) -> int:
        """`time_us`, doubled with every campaign that failed: however slow the disks and the
        network are, some campaign has time enough."""
        return time_us << min(self.failed, _DOUBLINGS_MAX)
