"""Linearizable reads without writing to the log (Ongaro's thesis, section 6.4).

A leader notes its commit index, confirms by a round of acknowledgements that *started after*
the read arrived that it still leads, and serves. A follower asks the leader for such an index;
an answer serves only the reads that were waiting when that numbered question was sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from attrs import define

from distinv.core.quorum import VoterSets, quorum_value
from distinv.entry import NodeId

_DOUBLINGS_MAX = 4
_ASKED_MAX = 16
"""Questions under way; with the doubling patience an answer may take two seconds."""


@define
class _Waiting:
    round: int
    index: int
    ticket: int


class ReadRounds:
    """The leader's side: reads wait for a round of confirmations."""

    def __init__(self) -> None:
        self.round = 0
        self._waiting: deque[_Waiting] = deque()
        self._asked_at = 0
        self._confirmed = 0
        self._fresh = False

    def add(self, ticket: int, commit: int) -> None:
        """A read arrived: only a round that starts from now on confirms it."""
        self._waiting.append(_Waiting(self.round + 1, commit, ticket))
        self._fresh = True

    def next_round(self, now: int, interval_us: int) -> bool:
        """Start a round if reads want one, none is under way, or that one is overdue."""
        if not self._waiting:
            return False
        under_way = self.round > self._confirmed
        if under_way and now - self._asked_at < interval_us:
            return False
        if self._fresh:
            self.round += 1
            self._fresh = False
        self._asked_at = now
        return True

    def deadline(self, interval_us: int) -> int | None:
        """When the round under way is overdue; a read without one gets it as the turn ends."""
        under_way = self._waiting and self.round > self._confirmed
        return self._asked_at + interval_us if under_way else None

    def confirm(
        self, sets: VoterSets, rounds: Mapping[NodeId, int], self_id: NodeId
    ) -> tuple[tuple[int, ...], int] | None:
        """Reads whose round a quorum has confirmed: (tickets, index to have applied)."""
        if not self._waiting:
            return None
        confirmed = quorum_value(sets, {**rounds, self_id: self.round})
        self._confirmed = max(self._confirmed, confirmed)
        tickets: list[int] = []
        index = 0
        while self._waiting and self._waiting[0].round <= confirmed:
            read = self._waiting.popleft()
            tickets.append(read.ticket)
            index = max(index, read.index)
        return (tuple(tickets), index) if tickets else None

    def abandon(self) -> tuple[int, ...]:
        tickets = tuple(read.ticket for read in self._waiting)
        self._waiting.clear()
        return tickets


class ReadQuestions:
    """A follower's side: numbered questions to the leader.

    A process has one of these for life, so that no number is used twice: an answer may be late
    by so much that the leader was suspected meanwhile, and is followed again.
    """

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()
        self._gone = 0
        """Reads that do not wait any more, since the start."""
        self._asked: dict[int, int] = {}
        """By question under way: how many reads had come, since the start, when it was sent."""
        self._number = 0
        self._asked_at = 0
        self._unanswered_since = 0

    def add(self, ticket: int, now: int) -> None:
        if not self._waiting:
            self._unanswered_since = now
        self._waiting.append(ticket)

    def unanswered_us(self, now: int) -> int:
        """For how long reads have waited without any answer."""
        return now - self._unanswered_since if self._waiting else 0

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def _patience_us(self, interval_us: int) -> int:
        """Doubles with every unanswered question: an answer may be under way for long."""
        return interval_us << min(len(self._asked) - 1, _DOUBLINGS_MAX) if self._asked else 0

    def next_question(self, now: int, interval_us: int) -> int | None:
        """The number of a question to send now, or None."""
        if not self._waiting or now - self._asked_at < self._patience_us(interval_us):
            return None
        self._number += 1
        self._asked[self._number] = self._gone + len(self._waiting)
        while len(self._asked) > _ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked_at = now
        return self._number

    def deadline(self, interval_us: int) -> int | None:
        """When to ask again; a read that nobody was asked about is as the turn ends."""
        under_way = self._waiting and self._asked
        return self._asked_at + self._patience_us(interval_us) if under_way else None

    def answered(self, number: int, now: int) -> tuple[int, ...]:
        """The reads that this answer serves."""
        until = self._asked.pop(number, None)
        if until is None:
            return ()
        self._unanswered_since = now
        self._asked = {later: reads for later, reads in self._asked.items() if later > number}
        served = tuple(self._waiting.popleft() for _ in range(until - self._gone))
        self._gone += len(served)
        return served

    def abandon(self) -> tuple[int, ...]:
        tickets = tuple(self._waiting)
        self._gone += len(tickets)
        self._waiting.clear()
        self._asked.clear()
        return tickets
