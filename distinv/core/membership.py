"""The voter sets in play, read off the log and never off who was lately seen (invariant 5).

A change entry counts from the moment it is appended. Until it is known committed the set before
it is in play too, and every quorum needs a majority of each (as ZooKeeper's dynamic
reconfiguration; Shraer, Reed, Malkhi, Junqueira, ATC 2012).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from distinv.core.log import Log
from distinv.core.quorum import VoterSets, members
from distinv.entry import Entry, EntryKind, NodeId, VoterSet, decode_voters
from distinv.wire.messages import VotersInPlay


class Membership:
    """Looks at the log again only when its voters changed."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._seen: tuple[int, ...] | None = None
        """The log's voter indexes as they were when the following was read off it."""
        self._unknown_from = 0
        """The first of them not known committed then."""
        self._sets: tuple[tuple[NodeId, ...], ...] = ()
        self._voters: tuple[NodeId, ...] = ()

    def current(self) -> VoterSet | None:
        """The last set in the log, committed or not."""
        return self._log.voters_at(self._log.voter_indexes[-1]) if self._log.voter_indexes else None

    def _indexes_in_play(self, commit: int) -> list[int]:
        indexes = self._log.voter_indexes
        committed = [index for index in indexes if index <= commit]
        return committed[-1:] + [index for index in indexes if index > commit]

    def sets(self, commit: int) -> VoterSets:
        self._look(commit)
        return self._sets

    def voters(self, commit: int) -> tuple[NodeId, ...]:
        """Everybody in a set in play, ascending."""
        self._look(commit)
        return self._voters

    def _look(self, commit: int) -> None:
        seen = self._log.voter_indexes
        if seen is self._seen and commit < self._unknown_from:
            return
        self._seen = seen
        self._unknown_from = min((index for index in seen if index > commit), default=1 << 64)
        self._sets = tuple(
            [self._log.voters_at(index).ids for index in self._indexes_in_play(commit)]
        )
        self._voters = members(self._sets)

    def describe(self, commit: int) -> tuple[VotersInPlay, ...]:
        """What a promise reports."""
        return tuple(
            VotersInPlay(
                index, self._log.ballot_at(index), self._log.voters_at(index).ids, index <= commit
            )
            for index in self._indexes_in_play(commit)
        )


def has_readable_voters(entries: Iterable[Entry]) -> bool:
    """Whether every voter entry among `entries`, which a peer sent, holds a voter set."""
    for entry in entries:
        if entry.kind == EntryKind.VOTERS:
            try:
                decode_voters(entry.payload)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                return False
    return True


def sets_in_play(described: tuple[VotersInPlay, ...]) -> VoterSets:
    """The sets of a promise, as `quorum` counts them."""
    return [tuple(NodeId(voter) for voter in each.voters) for each in described]
