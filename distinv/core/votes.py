"""How a server answers those who want to lead: what it grants, promises and refuses.

What binds it, the promise and the log, is the node's; what becomes of a promise that is made
durable, too. Here is only who gets one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.core.events import Send
from distinv.entry import NO_BALLOT, TERM_JUMP_MAX, Ballot, NodeId
from distinv.wire.messages import (
    BallotRefused,
    Prepare,
    PrepareRefused,
    PreVote,
    PreVoteReply,
    Promise,
)

if TYPE_CHECKING:
    from distinv.core.node import Node


def on_pre_vote(node: Node, source: NodeId, message: PreVote) -> None:
    if was_removed(node, source, message.voters_index):
        return
    granted = not node.hears_leader()
    leader = 0 if granted else node.leader or 0
    node.send(source, PreVoteReply(message.number, granted, node.promised, leader))


def was_removed(node: Node, source: NodeId, voters_index: int) -> bool:
    """It is in no voter set in play here, and knows of none that is newer than the last here.

    One that was voted out and does not know it would disturb the others for ever.
    """
    own = node.voters_index
    return own > 0 and voters_index <= own and not node.is_voter(source)


def acceptable(node: Node, source: NodeId, ballot: Ballot) -> bool:
    """Invariant 1: a ballot has one owner; and no term out of the blue.

    One out of reach is approached by a step, which promises nothing to anybody: a server that
    was away while the terms leapt, and every new one, would else be left behind for good.
    """
    if ballot.node != source:
        return False
    reach = node.promised.term + TERM_JUMP_MAX
    if ballot.term > reach and not node.hears_leader():
        node.raise_promise(Ballot(reach, 0))
        node.become_follower(None, node.leader_ballot)
    return ballot.term <= reach


def on_prepare(node: Node, source: NodeId, message: Prepare) -> None:
    ballot = message.ballot
    if was_removed(node, source, message.voters_index) or not acceptable(node, source, ballot):
        return
    if ballot == node.promised:
        # Repeated answers are identical; in office, a leader needs none.
        if node.last_promise is not None and node.leader_ballot != ballot:
            node.hold_for_promise(Send(source, node.last_promise))
        return
    sticky = (
        node.hears_leader()
        and source != node.leader
        and (message.ordered_by == NO_BALLOT or message.ordered_by != node.leader_ballot)
    )
    if ballot < node.promised or sticky:
        heard = node.leader if node.hears_leader() and node.leader is not None else 0
        node.send(source, PrepareRefused(ballot, node.promised, heard))
        return
    node.raise_promise(ballot)
    grace_us = node.campaigns.patience_us(node.timing.campaign_us)
    node.campaigns.failed += 1
    node.campaigns.quiet_until = node.now + grace_us
    node.become_follower(None, ballot, grace_us)
    node.last_promise = Promise(
        ballot, node.log.last, node.commit, node.clock_us, node.membership.describe(node.commit)
    )
    node.hold(Send(source, node.last_promise))


def refuse(node: Node, source: NodeId, ballot: Ballot) -> None:
    """Answer a leader whose ballot is below the promise."""
    heard = node.leader if node.leader_ballot == node.promised and node.hears_leader() else None
    node.send(source, BallotRefused(ballot, node.promised, heard or 0))


def on_ballot_refused(node: Node, source: NodeId, message: BallotRefused) -> None:
    if message.ballot != node.promised or message.promised <= message.ballot:
        return
    node.role.on_ballot_refused(source, message)
