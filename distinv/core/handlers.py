"""Who deals with which event and which message: the two tables, and what is short enough.

An event goes to the role, or to the part of the node that it is about. None of these functions
makes a role: `node.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distinv.core import belonging, dissolution, shortening, votes
from distinv.core.candidate import Candidate
from distinv.core.events import (
    Applied,
    BeaconSeen,
    ClusterGone,
    EndTurn,
    Installed,
    LinkLost,
    NotAppended,
    Order,
    OrderAnswered,
    OtherClusterMet,
    PeerRefused,
    Persisted,
    Read,
    Received,
    SendEntries,
    StoreDurable,
    Submit,
    TimeReached,
    Transfer,
)
from distinv.core.follower import Follower
from distinv.core.leader import Leader
from distinv.entry import Ballot, NodeId
from distinv.wire.messages import (
    Append,
    AppendAck,
    AppendMismatch,
    BallotRefused,
    Behind,
    BirthAnswer,
    BirthOffer,
    Dismissed,
    ElectionMessage,
    Heartbeat,
    HeartbeatAck,
    Join,
    NominateHint,
    Prepare,
    PrepareRefused,
    PreVote,
    PreVoteReply,
    Promise,
    Pull,
    PullReply,
    ReadIndex,
    ReadIndexReply,
    TransferOrder,
)

if TYPE_CHECKING:
    from distinv.core.node import Node


def _on_received(node: Node, event: Received) -> None:
    handler = _MESSAGES.get(type(event.message))
    if handler is not None and event.source != node.self_id:
        if node.is_voter(event.source):
            node.voters_heard[event.source] = node.now
        handler(node, event.source, event.message)


def _on_persisted(node: Node, event: Persisted) -> None:
    before = node.durability.durable_index
    for effect in node.durability.persisted(event.ticket, node.now):
        node.emit(effect)
    if node.birth is not None and node.birth_ticket <= node.durability.durable_ticket:
        belonging.do_birth(node, node.birth.on_durable())
    node.role.on_persisted(node.durability.durable_index > before)
    node.advance_commit(node.commit)


def _on_applied(node: Node, event: Applied) -> None:
    node.applied = event.index
    node.log.evict_bodies(event.index)
    if isinstance(node.role, Leader):
        node.role.maybe_serve()


def _on_submit(node: Node, event: Submit) -> None:
    if isinstance(node.role, Leader):
        node.role.submit(event.command)
    else:
        node.emit(NotAppended((event.command,), "not_leader"))


def _on_read(node: Node, event: Read) -> None:
    node.role.read(event.ticket)


def _on_link_lost(node: Node, event: LinkLost) -> None:
    if isinstance(node.role, Leader):
        node.role.on_link_lost(event.peer)


def _on_refused(node: Node, event: PeerRefused) -> None:
    if event.peer == node.leader and isinstance(node.role, Follower):
        node.detector.refused_at = node.now


def _on_transfer(node: Node, event: Transfer) -> None:
    if isinstance(node.role, Leader):
        if event.ticket:
            node.role.changes.transfer(event.ticket, event.target)
        else:
            node.role.transfer_to(event.target)
    elif event.ticket:
        node.emit(OrderAnswered(event.ticket, False, "not_leader"))


def _on_order(node: Node, event: Order) -> None:
    if isinstance(node.role, Leader):
        node.role.changes.order(event)
    else:
        node.emit(OrderAnswered(event.ticket, False, "not_leader"))


def _on_time(node: Node, event: TimeReached) -> None:
    due = node.own_deadline()
    late_us = 0 if due is None else node.health.observe(due, node.now)
    if late_us:
        # This process slept: whoever seems silent may have spoken to nobody.
        node.detector.excuse(late_us, node.now)
        node.durability.excuse(late_us, node.now)
        if node.now - node.campaigns.late_until > node.timing.suspect_ceiling_us:
            node.campaigns.late_until = node.now + node.timing.heartbeat_us
        node.role.excuse(late_us)
    if node.birth is not None:
        belonging.do_birth(node, node.birth.on_deadline(node.now))
    else:
        node.elector.on_deadline(node.now)
    node.role.on_time()


def _on_end_turn(node: Node, event: EndTurn) -> None:
    node.role.end_turn()
    write = node.durability.take_write(node.log.last_index, node.now)
    if write is not None:
        node.emit(write)


# --- a leader speaks --------------------------------------------------------------------------


def _follow(node: Node, source: NodeId, ballot: Ballot) -> Follower | None:
    """Follow the leader of `ballot`; None when it is not to be followed."""
    if not votes.acceptable(node, source, ballot):
        return None
    if ballot < node.promised:
        votes.refuse(node, source, ballot)
        return None
    if ballot > node.promised:
        node.raise_promise(ballot)
    role = node.role
    if not isinstance(role, Follower) or node.leader != source or node.leader_ballot != ballot:
        node.become_follower(source, ballot)
    node.detector.heard(node.now)
    assert isinstance(node.role, Follower)
    return node.role


def _on_heartbeat(node: Node, source: NodeId, message: Heartbeat) -> None:
    follower = _follow(node, source, message.ballot)
    if follower is not None:
        follower.on_heartbeat(message)


def _on_append(node: Node, source: NodeId, message: Append) -> None:
    follower = _follow(node, source, message.ballot)
    if follower is not None:
        follower.on_append(message)
        if node.birth is not None and node.log.last_index:
            current = node.membership.current()
            assert current is not None
            belonging.settle_birth(node, current.cluster_id)


def _on_pull(node: Node, source: NodeId, message: Pull) -> None:
    """Anybody who holds the log that is asked for may send it."""
    until = node.log.position(message.until_index)
    after, base = message.after, node.log.base.index
    if until is None or until.ballot != message.until_ballot:
        node.send(source, PullReply(message.ballot, after, (), False, 0, base))
    elif not node.log.holds(after):
        conflict = node.log.position(after.index) is not None
        matches = node.log.guess_match(after.index - conflict, after.ballot)
        node.send(source, PullReply(message.ballot, after, (), True, matches, base))
    else:
        node.emit(SendEntries(source, message.ballot, after, message.until_index, True))


# --- messages for one role only ---------------------------------------------------------------


def _on_election(node: Node, source: NodeId, message: ElectionMessage) -> None:
    node.elector.on_message(source, message, node.now)


def _on_hint(node: Node, source: NodeId, message: NominateHint) -> None:
    if source == node.promised.node:
        node.campaigns.quiet_until = node.now  # it leaves its own campaign to this server
    if node.is_voter(source) and node.may_campaign():
        node.become_candidate(f"{node.name_of(source)} nominates this server")


def _for_follower(node: Node, source: NodeId, message: Any) -> None:
    if isinstance(node.role, Follower) and source == node.leader:
        node.role.on_message(message)


def _on_dismissed(node: Node, source: NodeId, message: Dismissed) -> None:
    if isinstance(node.role, Follower) and source == node.leader:
        node.abstain(message.voters_index)
        node.role.acknowledge()  # it may stop at once, and its leader waits to hear of it


def _for_candidate(node: Node, source: NodeId, message: Any) -> None:
    if isinstance(node.role, Candidate):
        node.role.on_message(source, message)


def _for_leader(node: Node, source: NodeId, message: Any) -> None:
    if isinstance(node.role, Leader):
        node.role.on_message(source, message)


EVENTS: dict[type, Callable[[Node, Any], None]] = {
    Received: _on_received,
    BeaconSeen: belonging.on_beacon,
    OtherClusterMet: dissolution.on_met,
    ClusterGone: dissolution.on_gone,
    Persisted: _on_persisted,
    Applied: _on_applied,
    StoreDurable: shortening.on_store_durable,
    Installed: shortening.on_installed,
    Submit: _on_submit,
    Read: _on_read,
    LinkLost: _on_link_lost,
    PeerRefused: _on_refused,
    Transfer: _on_transfer,
    Order: _on_order,
    TimeReached: _on_time,
    EndTurn: _on_end_turn,
}

_MESSAGES: dict[type, Callable[[Node, NodeId, Any], None]] = {
    BirthOffer: belonging.on_birth_offer,
    BirthAnswer: belonging.on_birth_answer,
    ElectionMessage: _on_election,
    NominateHint: _on_hint,
    PreVote: votes.on_pre_vote,
    Prepare: votes.on_prepare,
    BallotRefused: votes.on_ballot_refused,
    Heartbeat: _on_heartbeat,
    Append: _on_append,
    Pull: _on_pull,
    ReadIndexReply: _for_follower,
    TransferOrder: _for_follower,
    Dismissed: _on_dismissed,
    PreVoteReply: _for_candidate,
    Promise: _for_candidate,
    PrepareRefused: _for_candidate,
    PullReply: _for_candidate,
    Join: _for_leader,
    HeartbeatAck: _for_leader,
    AppendAck: _for_leader,
    AppendMismatch: _for_leader,
    Behind: _for_follower,
    ReadIndex: _for_leader,
}
