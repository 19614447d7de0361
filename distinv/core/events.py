"""What happens to a `Node`, and what it wants done: its whole contact with the world."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from attrs import frozen

from distinv.entry import Ballot, NodeId, Position
from distinv.storage.api import Record
from distinv.wire.messages import Beacon, LogCommand, Message

# --- events -----------------------------------------------------------------------------------


@frozen
class Received:
    """A message from a process whose identity the endpoint vouches for."""

    source: NodeId
    message: Message


@frozen
class BeaconSeen:
    """Somebody announced itself; nothing in it is trusted beyond "this may be worth asking"."""

    source: NodeId
    beacon: Beacon


@frozen
class Persisted:
    """Every write up to and including `ticket` is durable."""

    ticket: int


@frozen
class Applied:
    """The store has applied the log up to `index`."""

    index: int


@frozen
class Submit:
    """Append this command, if this node leads; batches form by themselves."""

    command: LogCommand


@frozen
class Read:
    """Tell me (by `ReadReady`) from which index on a linearizable read may be served."""

    ticket: int


@frozen
class LinkLost:
    """What was under way to `peer` over the ordered link is gone."""

    peer: NodeId


@frozen
class PeerRefused:
    """The kernel says that nobody listens at the peer's port: its process is gone."""

    peer: NodeId


@frozen
class Transfer:
    """Hand leadership over to `target`, or to the best follower when it is None."""

    target: NodeId | None


@frozen
class TimeReached:
    """The time that `deadline()` named has come."""


@frozen
class EndTurn:
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


@frozen
class Send:
    to: NodeId
    message: Message


@frozen
class Multicast:
    """The same message to several peers, by the multicast strategy."""

    peers: tuple[NodeId, ...]
    message: Message


@frozen
class SendEntries:
    """An `Append` (or, for a pull, a `PullReply`) whose bodies may have to be read from storage."""

    to: NodeId
    ballot: Ballot
    previous: Position
    last: int
    pulled: bool


@frozen
class Write:
    """Commit these records together, then step `Persisted(ticket)`."""

    ticket: int
    records: tuple[Record, ...]


@frozen
class Commit:
    """Entries up to `index` are committed and durable here: apply them in order."""

    index: int


@frozen
class ReadReady:
    """These reads may be served once the store has applied `index`."""

    tickets: tuple[int, ...]
    index: int


@frozen
class ReadFailed:
    """These reads cannot be served here: `no_leader`, or `no_quorum`."""

    tickets: tuple[int, ...]
    reason: str


@frozen
class NotAppended:
    """Submitted, but not appended and never will be by this submission."""

    commands: tuple[LogCommand, ...]
    reason: str


@frozen
class Probe:
    """Ask the kernel whether the peer's process still has its port; answer by `PeerRefused`."""

    peer: NodeId


class Standing(Enum):
    """What a server is, in the words of `distinv status`."""

    BLANK = "blank"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@frozen
class LeaderChanged:
    """Who leads, as far as this node knows. `serving`: this node leads and may serve."""

    leader: NodeId | None
    ballot: Ballot
    serving: bool


@frozen
class Born:
    """The cluster exists, with this id; from now on every datagram carries it."""

    cluster_id: int


@frozen
class Tell:
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
