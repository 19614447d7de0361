"""The extension point "multicast": how one message reaches all peers.

The promise: FIFO per sender, gap-free or stalled, and nothing else. Delivered is not applied:
the core verifies and commits what a multicast delivers.

Who calls: the server's engine, with the current time in microseconds. Methods are pure, like
an election's. `Unicast` rides on the reliable FIFO link to one peer; `Group` is one unreliable
datagram to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol, TypeAlias

from attrs import frozen

from distinv.config import Limits, Timing
from distinv.entry import NodeId


@frozen
class Unicast:
    """Send over the reliable FIFO link to one peer."""

    to: NodeId
    body: bytes


@frozen
class Group:
    """Send one unreliable datagram to the whole group."""

    body: bytes


@frozen
class Deliver:
    """Hand to the core what `source` multicast, in answer to whichever call."""

    source: NodeId
    body: bytes


MulticastAction: TypeAlias = Unicast | Group | Deliver


@frozen
class MulticastContext:
    """What a multicast factory receives."""

    self_id: NodeId
    random: Random
    timing: Timing
    limits: Limits


class Multicast(Protocol):
    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> Iterable[MulticastAction]:
        """The core multicasts `body` to `peers`."""
        ...

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[MulticastAction]:
        """A peer's multicast sent this (what `Unicast` or `Group` carried)."""
        ...

    def on_peer_lost(self, peer: NodeId, now: int) -> Iterable[MulticastAction]:
        """The link to a peer was reset: what was under way to it is gone."""
        ...

    def on_deadline(self, now: int) -> Iterable[MulticastAction]: ...

    def deadline(self) -> int | None: ...


class MulticastFactory(Protocol):
    def __call__(self, context: MulticastContext) -> Multicast: ...
