"""How a server comes to belong to a cluster: it is born with one, or asks to join one.

`birth.py` decides who is born with whom. Here its decisions are carried out, each after what it
rests on is durable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distinv.core.birth import Answer, BirthAction, Offer, Remember, Say
from distinv.core.events import BeaconSeen, Born, Send
from distinv.core.follower import Follower
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    EntryKind,
    NodeId,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.storage.api import BirthRecord
from distinv.wire.messages import BirthAnswer, BirthOffer, Join

if TYPE_CHECKING:
    from distinv.core.node import Node


def on_beacon(node: Node, event: BeaconSeen) -> None:
    beacon = event.beacon
    if beacon.cluster_name != node.cluster_name or event.source == node.self_id:
        return
    if node.birth is not None:
        do_birth(node, node.birth.on_beacon(event.source, beacon, node.now, event.address))
    leads = beacon.cluster_id != 0 and beacon.leader == event.source
    if leads and (node.wants_log() or beacon.ballot > node.leader_ballot):
        node.send(event.source, Join(node.server_name))


def do_birth(node: Node, actions: list[BirthAction]) -> None:
    for action in actions:
        if isinstance(action, Remember):
            node.record(action.record)
            node.birth_ticket = node.durability.open_ticket
        elif isinstance(action, (Answer, Offer)):
            node.hold(Send(action.to, action.message))
        elif isinstance(action, Say):
            node.tell(action.text, action.level)
        else:
            be_born(node, action.proposal)


def be_born(node: Node, proposal: VoterSet) -> None:
    """The cluster exists: its first entry is the proposal, the same on every server."""
    names = ", ".join(voter.name for voter in proposal.voters)
    node.tell(f"cluster {proposal.cluster_name!r} is born with the voters {names}")
    node.append(make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(proposal)))
    settle_birth(node, proposal.cluster_id)
    node.commit = 1
    if isinstance(node.role, Follower) and node.leader is None:
        node.role.call_election()  # nobody can have led yet, as far as this server knows


def settle_birth(node: Node, cluster_id: int) -> None:
    node.birth = None
    node.record(BirthRecord(None, ()))
    node.emit(Born(cluster_id))


def on_birth_offer(node: Node, source: NodeId, message: BirthOffer) -> None:
    if node.birth is not None:
        do_birth(node, node.birth.on_offer(source, message.proposal, node.now))
        return
    # One that has not noticed. Who belongs to a cluster accepts no other proposal any more;
    # the log that says so has to be durable first.
    current, proposal = node.membership.current(), message.proposal
    if current is not None and proposal.cluster_name == node.cluster_name:
        same = proposal.cluster_id == current.cluster_id
        node.hold(Send(source, BirthAnswer(proposal.cluster_id, same, None)))


def on_birth_answer(node: Node, source: NodeId, message: BirthAnswer) -> None:
    if node.birth is not None:
        do_birth(node, node.birth.on_answer(source, message, node.now))
