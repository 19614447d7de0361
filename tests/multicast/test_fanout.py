"""Fanout: one unicast to each peer, in order; what arrives is delivered."""

from __future__ import annotations

from random import Random

from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.multicast.api import Deliver, Multicast, MulticastContext, MulticastFactory, Unicast
from distinv.multicast.fanout import fanout

FACTORY: MulticastFactory = fanout
PEERS = [NodeId(7), NodeId(3), NodeId(5)]


def make() -> Multicast:
    return FACTORY(
        MulticastContext(self_id=NodeId(1), random=Random(1), timing=Timing(), limits=Limits())
    )


def test_one_unicast_to_each_peer() -> None:
    multicast = make()
    assert list(multicast.on_send(PEERS, b"body", 0)) == [Unicast(peer, b"body") for peer in PEERS]
    assert list(multicast.on_send([], b"body", 0)) == []


def test_what_arrives_is_delivered_once() -> None:
    assert list(make().on_message(NodeId(7), b"body", 0)) == [Deliver(NodeId(7), b"body")]


def test_there_is_nothing_to_wait_for() -> None:
    multicast = make()
    list(multicast.on_send(PEERS, b"body", 0))
    assert list(multicast.on_peer_lost(NodeId(7), 1)) == []
    assert list(multicast.on_deadline(2)) == []
    assert multicast.deadline() is None
