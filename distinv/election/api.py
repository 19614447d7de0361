"""The extension point "election": who should lead next?

An election only *nominates*. The core prepares a ballot for the nominee, and a quorum ordains
it; a wrong, slow or hostile election costs time and never safety. The core's own watchdog
nominates when nothing comes of it.

Who calls: the core, between other events, always with the current time in microseconds. Every
method is pure: no clock, no I/O, no global randomness; whatever is random comes from
`ElectionContext.random`. Raising is tolerated: it is logged, and the election is asked nothing
more about that event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Protocol, TypeAlias

from attrs import frozen

from distinv.config import Timing
from distinv.entry import Ballot, NodeId


@frozen
class SendElection:
    """Send `body` to one peer's election of the same name. It may be lost."""

    to: NodeId
    body: bytes


@frozen
class Nominate:
    """Let `node` campaign. Another node is sent a hint, this one prepares a ballot."""

    node: NodeId


ElectionAction: TypeAlias = SendElection | Nominate


@frozen
class ElectionContext:
    """What an election factory receives."""

    self_id: NodeId
    random: Random
    timing: Timing


class Election(Protocol):
    """One server's part of an election algorithm."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        """The leader is late or gone (None: there was none). May be called again."""
        ...

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        """A peer's election sent this. The bytes are untrusted."""
        ...

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        """A leader is in office: the election is over."""
        ...

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        """Who may be nominated from now on, in ascending order; this server may be among them."""
        ...

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        """The time that `deadline` named has come."""
        ...

    def deadline(self) -> int | None:
        """When to call `on_deadline`, or None."""
        ...


class ElectionFactory(Protocol):
    def __call__(self, context: ElectionContext) -> Election: ...
