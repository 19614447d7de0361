"""How long an election waits for what it cannot hurry: another server's campaign.

A nominee has to win a pre-vote, have promises written to disk, synchronise its log and commit
an entry. Waiting a little too long costs that time once; starting anew too early makes two
candidates compete. So every fruitless round doubles the wait, up to a bound, and a random part
keeps servers that started together from starting together again.
"""

from __future__ import annotations

from random import Random

from distinv.config import Timing

_DOUBLINGS_MAX = 4
"""From one answer time (a campaign is two exchanges and two writes to disk) to sixteen."""


def patience_us(timing: Timing, random: Random, rounds: int) -> int:
    """The wait after the `rounds`-th fruitless start (1 is the first), in microseconds."""
    doublings = min(max(rounds - 1, 0), _DOUBLINGS_MAX)
    return (timing.election_answer_us << doublings) + jitter_us(timing, random)


def jitter_us(timing: Timing, random: Random) -> int:
    """Up to one answer time."""
    return random.randrange(timing.election_answer_us + 1)
