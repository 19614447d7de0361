"""Who should vote: a pure answer to what the leader sees (design of the voter set).

Voters are odd in number, at most `voters_max`, and as many of the members as that allows: servers
that vote, and learners that have kept up for a while. A server that is gone for long is replaced,
or, with nobody to replace it, let go; but never are there less than `voters_min` because of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from distinv.core.birth import odd_voters
from distinv.entry import NodeId


@frozen
class Member:
    """One server of the cluster, as the leader sees it."""

    node: NodeId
    votes: bool
    """In the last voter set of the log."""
    gone: bool = False
    """Silent for so long that nobody waits for it any more."""
    ready: bool = True
    """It has kept up with the log for a while."""
    leaving: bool = False
    """It was asked to give its vote up, or not to take one."""


def best_voters(
    members: Sequence[Member], leader: NodeId, *, voters_max: int, voters_min: int
) -> tuple[NodeId, ...]:
    """Who should vote, ascending; the present voters when nothing is to be changed.

    `members` are the leader itself, all present voters, and the learners that are heard.
    """
    present = tuple(sorted([each.node for each in members if each.votes]))
    stay = [each for each in members if each.votes and not each.gone and not each.leaving]
    come = [each for each in members if not each.votes and not each.leaving and each.ready]
    gone = [each for each in members if each.votes and each.gone and not each.leaving]
    leaving = sum(each.votes and each.leaving for each in members)
    able = [each.node for each in (*_by_seat(stay, leader), *_by_seat(come, leader))]
    count = odd_voters(len(able), voters_max)
    least = min(voters_min, len(present) - leaving)
    if count < least and gone:
        # Not below the least by itself: who is gone keeps a seat, though nobody waits for it.
        able += [each.node for each in _by_seat(gone, leader)]
        count = odd_voters(min(len(able), len(present)), voters_max)
    if not able:
        return present
    return tuple(sorted(able[:count]))


def _by_seat(members: Sequence[Member], leader: NodeId) -> list[Member]:
    """The leader first, then by id: the same answer from every leader."""
    return sorted(members, key=lambda each: (each.node != leader, each.node))
