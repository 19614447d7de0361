"""Counting votes over the voter sets in play (invariant 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from distinv.entry import NodeId

VoterSets = Sequence[Sequence[NodeId]]
"""One set, or the old and the new one while a change is not known committed."""


def majority(count: int) -> int:
    """The least number of `count` voters of which any two such groups share one."""
    return count // 2 + 1


def is_quorum(sets: VoterSets, who: Collection[NodeId]) -> bool:
    """Whether `who` holds a majority of each set. No set, no quorum."""
    return bool(sets) and all(
        sum([voter in who for voter in voters]) >= majority(len(voters)) for voters in sets
    )


def can_win(sets: VoterSets, refused: Collection[NodeId]) -> bool:
    """Whether a quorum is still possible when `refused` will never agree."""
    return bool(sets) and all(
        sum(voter not in refused for voter in voters) >= majority(len(voters)) for voters in sets
    )


def quorum_value(sets: VoterSets, value_of: Mapping[NodeId, int]) -> int:
    """The highest value that a majority of each set has reached (absent voters have 0)."""
    return min([_majority_value(voters, value_of) for voters in sets], default=0)


def _majority_value(voters: Sequence[NodeId], value_of: Mapping[NodeId, int]) -> int:
    reached = sorted([value_of.get(voter, 0) for voter in voters], reverse=True)
    return reached[majority(len(voters)) - 1]


def members(sets: VoterSets) -> tuple[NodeId, ...]:
    """Everybody in any of the sets, ascending."""
    return tuple(sorted({voter for voters in sets for voter in voters}))
