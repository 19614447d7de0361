"""What happens to a `Node`, and what it wants done: its whole contact with the world."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from distinv.entry import Ballot, NodeId, Position
from distinv.storage.api import Record
from distinv.wire.messages import Beacon, LogCommand, Message


class _Value(msgspec.Struct, frozen=True):
    """Made and dropped by the thousand each second, which attrs takes three times as long for."""


# --- events -----------------------------------------------------------------------------------


class Received(_Value, frozen=True):
    """A message from a process whose identity the endpoint vouches for."""

    source: NodeId
    message: Message


class BeaconSeen(_Value, frozen=True):
    """Somebody announced itself; nothing in it is trusted beyond "this may be worth asking"."""

    source: NodeId
    beacon: Beacon


class Persisted(_Value, frozen=True):
    """Every write up to and including `ticket` is durable."""

    ticket: int


class Applied(_Value, frozen=True):
    """The store has applied the log up to `index`."""

    index: int


class Submit(_Value, frozen=True):
    """Append this command, if this node leads; batches form by themselves."""

    command: LogCommand


class Read(_Value, frozen=True):
    """Tell me (by `ReadReady`) from which index on a linearizable read may be served."""

    ticket: int


class LinkLost(_Value, frozen=True):
    """What was under way to `peer` over the ordered link is gone."""

    peer: NodeId


class PeerRefused(_Value, frozen=True):
    """The kernel says that nobody listens at the peer's port: its process is gone."""

    peer: NodeId


class Transfer(_Value, frozen=True):
    """Hand leadership over to `target`, or to the best follower when it is None."""

    target: NodeId | None


class TimeReached(_Value, frozen=True):
    """The time that `deadline()` named has come."""


class EndTurn(_Value, frozen=True):
    """The events waiting are stepped: form a batch, hand over the turn's write."""


Event: TypeAlias = (
    Received
    | BeaconSeen
    | Persisted
    | Applied
    | Submit
    | Read
    | LinkLost
    | PeerRefused
    | Transfer
    | TimeReached
    | EndTurn
)

# --- effects ----------------------------------------------------------------------------------


class Send(_Value, frozen=True):
    to: NodeId
    message: Message


class Multicast(_Value, frozen=True):
    """The same message to several peers, by the multicast strategy."""

    peers: tuple[NodeId, ...]
    message: Message


class SendEntries(_Value, frozen=True):
    """An `Append` (or, for a pull, a `PullReply`) whose bodies may have to be read from storage."""

    to: NodeId
    ballot: Ballot
    previous: Position
    last: int
    pulled: bool


class Write(_Value, frozen=True):
    """Commit these records together, then step `Persisted(ticket)`."""

    ticket: int
    records: tuple[Record, ...]


class Commit(_Value, frozen=True):
    """Entries up to `index` are committed and durable here: apply them in order."""

    index: int


class ReadReady(_Value, frozen=True):
    """These reads may be served once the store has applied `index`."""

    tickets: tuple[int, ...]
    index: int


class ReadFailed(_Value, frozen=True):
    """These reads cannot be served here: `no_leader`, or `no_quorum`."""

    tickets: tuple[int, ...]
    reason: str


class NotAppended(_Value, frozen=True):
    """Submitted, but not appended and never will be by this submission."""

    commands: tuple[LogCommand, ...]
    reason: str


class Probe(_Value, frozen=True):
    """Ask the kernel whether the peer's process still has its port; answer by `PeerRefused`."""

    peer: NodeId


class Standing(Enum):
    """What a server is, in the words of `distinv status`."""

    BLANK = "blank"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


class LeaderChanged(_Value, frozen=True):
    """Who leads, as far as this node knows. `serving`: this node leads and may serve."""

    leader: NodeId | None
    ballot: Ballot
    serving: bool


class Born(_Value, frozen=True):
    """The cluster exists, with this id; from now on every datagram carries it."""

    cluster_id: int


class Tell(_Value, frozen=True):
    """A line for the log: who leads, who joined, why an election started."""

    level: str
    """debug, info, warning, error"""
    text: str


Effect: TypeAlias = (
    Send
    | Multicast
    | SendEntries
    | Write
    | Commit
    | ReadReady
    | ReadFailed
    | NotAppended
    | Probe
    | LeaderChanged
    | Born
    | Tell
)


class InvariantBroken(AssertionError):
    """The protocol's own promise does not hold: a bug. The server stops and serves nothing."""
