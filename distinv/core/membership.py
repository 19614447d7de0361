"""The voter sets in play, read off the log and never off who was lately seen (invariant 5).

A change entry counts from the moment it is appended. Until it is known committed the set before
it is in play too, and every quorum needs a majority of each (as ZooKeeper's dynamic
reconfiguration; Shraer, Reed, Malkhi, Junqueira, ATC 2012).
"""

from __future__ import annotations

from distinv.core.log import Log
from distinv.core.quorum import VoterSets
from distinv.entry import NodeId, VoterSet, decode_voters
from distinv.wire.messages import VotersInPlay


class Membership:
    """Decodes each voter entry once."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._decoded: dict[bytes, VoterSet] = {}

    def _set_at(self, index: int) -> VoterSet:
        position = self._log.position(index)
        assert position is not None
        found = self._decoded.get(position.hash)
        if found is None:
            body = self._log.body(index)
            assert body is not None, "bodies of voter entries are never evicted"
            found = self._decoded[position.hash] = decode_voters(body.payload)
        return found

    @property
    def known(self) -> bool:
        return bool(self._log.voter_indexes)

    def current(self) -> VoterSet | None:
        """The last set in the log, committed or not."""
        return self._set_at(self._log.voter_indexes[-1]) if self._log.voter_indexes else None

    def _indexes_in_play(self, commit: int) -> list[int]:
        indexes = self._log.voter_indexes
        committed = [index for index in indexes if index <= commit]
        return committed[-1:] + [index for index in indexes if index > commit]

    def sets(self, commit: int) -> VoterSets:
        return [self._set_at(index).ids for index in self._indexes_in_play(commit)]

    def describe(self, commit: int) -> tuple[VotersInPlay, ...]:
        """What a promise reports."""
        return tuple(
            VotersInPlay(
                index, self._log.ballot_at(index), self._set_at(index).ids, index <= commit
            )
            for index in self._indexes_in_play(commit)
        )

    def is_voter(self, node: NodeId) -> bool:
        current = self.current()
        return current is not None and node in current.ids


def sets_in_play(described: tuple[VotersInPlay, ...]) -> VoterSets:
    """The sets of a promise, as `quorum` counts them."""
    return [tuple(NodeId(voter) for voter in each.voters) for each in described]
