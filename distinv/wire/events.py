"""What an endpoint tells its driver: messages, events, counts."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from attrs import define, frozen

from distinv.entry import NodeId
from distinv.transport.api import Address


class Incoming(msgspec.Struct, frozen=True, gc=False):
    """One message body that arrived."""

    peer: NodeId
    address: Address
    body: bytes
    fresh: bool
    """False: it may be a replay, or an answer to an earlier process; only Seek, Beacon, Claim and
    Claimed count, and what `distinv.server.dissolving` says to other clusters."""
    foreign: bool
    """It comes from another cluster; only Beacon counts, and what that says."""
    cluster_id: int
    """The sender's, 0 while it has none."""
    known: bool = True
    """What is fresh is. What is not may yet come from the process that is believed to live behind
    this id, for the first time: sent to everybody, so that a multicast's group message counts."""


@frozen
class LinkReset:
    """What was queued or under way to `peer` is gone, and nothing more of its old stream comes."""

    peer: NodeId
    reason: str
    """restarted, forgotten, idle, evicted, queue_full, refused"""


@frozen
class PeerSeen:
    """`peer` proved to live at `address` now: on first contact, a restart, a new address."""

    peer: NodeId
    address: Address


@frozen
class Notice:
    """Something a person should know; repeated at most once per `Timing.notice_us`."""

    kind: str
    """wrong_key, version_mismatch, foreign_cluster, same_id"""
    address: Address
    detail: str


@frozen
class TwinHeard:
    """A process at `address` spoke under this process's own id: one that has the same, or this
    one's past, repeated. Told at every datagram of it."""

    address: Address


EndpointEvent: TypeAlias = LinkReset | PeerSeen | Notice | TwinHeard


@define
class Stats:
    """Counts since the start."""

    received_datagrams: int = 0
    received_bytes: int = 0
    sent_datagrams: int = 0
    sent_bytes: int = 0
    repaired_segments: int = 0
    """Sent again."""
    asked_segments: int = 0
    """Gaps that the other side was asked to fill."""
    timeouts: int = 0
    resets: int = 0
