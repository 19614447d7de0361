"""What happens to a `Node`, and what it wants done: its whole contact with the world."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from distinv.entry import Ballot, NodeId, Position
from distinv.storage.api import BaseRecord, Record
from distinv.transport.api import Address
from distinv.wire.batch import LogCommand
from distinv.wire.messages import Beacon, Message


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
    address: Address | None = None
    """Where it was heard."""


class OtherClusterMet(_Value, frozen=True):
    """Another cluster of this name lives and has a leader: it has just answered a question."""

    cluster_id: int
    server_name: str
    touched: bool
    """It may hold client commands."""


class ClusterGone(_Value, frozen=True):
    """A cluster of this name is dissolved: no blank server has to wait for it."""

    cluster_id: int


class Persisted(_Value, frozen=True):
    """Every write up to and including `ticket` is durable."""

    ticket: int


class Applied(_Value, frozen=True):
    """The store has applied the log up to `index`."""

    index: int


class StoreDurable(_Value, frozen=True):
    """What the store has applied up to `index` is on disk by itself: its entries may go."""

    index: int


class Installed(_Value, frozen=True):
    """A snapshot is in the store's place, durable: the log begins behind it."""

    base: BaseRecord
    touched: bool = True
    """It may hold something of clients."""


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
    """Hand leadership over to `target`, or to the best follower when it is None.

    With a `ticket`, answered by `OrderAnswered(ticket, …)` when somebody else leads.
    """

    target: NodeId | None
    ticket: int = 0


class Order(_Value, frozen=True):
    """Give `server` a vote, or take it: answered by `OrderAnswered(ticket, …)`."""

    ticket: int
    server: NodeId
    votes: bool
    stop: bool = False
    """It may stop when it has no vote any more: it wishes to leave."""
    confirmed: bool = True
    """Fewer than `Limits.voters_min` may be left."""


class TimeReached(_Value, frozen=True):
    """The time that `deadline()` named has come."""


class EndTurn(_Value, frozen=True):
    """The events waiting are stepped: form a batch, hand over the turn's write."""


Event: TypeAlias = (
    Received
    | BeaconSeen
    | OtherClusterMet
    | ClusterGone
    | Persisted
    | Applied
    | StoreDurable
    | Installed
    | Submit
    | Read
    | LinkLost
    | PeerRefused
    | Transfer
    | Order
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


class FetchSnapshot(_Value, frozen=True):
    """The log that follows begins behind the own one's end: get `source`'s store, then step
    `Installed`."""

    source: NodeId


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


class OrderAnswered(_Value, frozen=True):
    """What became of an order. Done: a majority of the voters knows that it is committed.

    Else `detail` says why: no_leader (ask the next one), not_yet (it goes on), overloaded,
    unknown_server, or words for people.
    """

    ticket: int
    done: bool
    detail: str


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


class MembersChanged(_Value, frozen=True):
    """Who votes, who receives the log, or who is reached may be others than before."""


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
    | FetchSnapshot
    | Write
    | Commit
    | ReadReady
    | ReadFailed
    | NotAppended
    | OrderAnswered
    | Probe
    | LeaderChanged
    | MembersChanged
    | Born
    | Tell
)


class InvariantBroken(AssertionError):
    """The protocol's own promise does not hold: a bug. The server stops and serves nothing."""
