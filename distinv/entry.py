"""The unit of the replicated log, and the names of those who write it.

Everything here is a plain value: the wire carries it, the journal keeps it, the core reasons
about it. The *hash chain* binds every entry to all that came before it, so two logs that have
the same hash at an index are equal up to that index (invariant 9).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple, NewType

import msgspec

NodeId = NewType("NodeId", int)
"""A process: a random integer of 1..2**63-1, chosen once and kept on disk by a server."""

ClusterId = NewType("ClusterId", int)
"""A cluster: a random integer of 1..2**63-1, chosen at birth. 0 means "not known yet"."""

HASH_BYTES = 16
NO_HASH = bytes(HASH_BYTES)


class Ballot(NamedTuple):
    """A leadership, ordered by term and then by owner. One ballot has one owner."""

    term: int
    node: int

    def __str__(self) -> str:
        return f"{self.term}.{self.node:016x}"


NO_BALLOT = Ballot(0, 0)

TERM_JUMP_MAX = 1 << 32
"""A ballot further above what was promised is a fault or an attack, and is not followed."""


class Position(NamedTuple):
    """A place in the log, together with what proves which log it is."""

    index: int  # type: ignore[assignment]  # the field's word, though tuples have index()
    ballot: Ballot
    hash: bytes


ORIGIN = Position(0, NO_BALLOT, NO_HASH)
"""The place before the first entry."""


class EntryKind(IntEnum):
    """What an entry's payload holds. Append only: numbers are on disk and on the wire."""

    NOOP = 0
    """Nothing: a new leader's first entry (invariant 4)."""
    VOTERS = 1
    """A `VoterSet`; the first entry of every log is one, and it is the cluster's birth."""
    COMMANDS = 2
    """A batch of client commands (`distinv.wire.batch.LogCommand`)."""
    DISSOLVED = 3
    """A `Successor`: once committed, this log's last entry that means anything. The cluster gives
    way to another of its name; no client command stands before it, and none comes after it."""


KIND_SINCE: dict[int, int] = {
    EntryKind.NOOP: 1,
    EntryKind.VOTERS: 1,
    EntryKind.COMMANDS: 1,
    EntryKind.DISSOLVED: 1,
}
"""The protocol since which each kind exists, for ever. None is appended before all who are to hold
it are known to speak that; who meets one that is not here stops, and has to be upgraded. A payload
that changes so that earlier releases would misread it needs a kind of its own."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One position of the log. `hash` covers every field and the hash of the entry before."""

    index: int
    ballot: Ballot
    time_us: int
    """Wall clock stamped by the leader, in microseconds since 1970; never decreases."""
    kind: int
    payload: bytes
    hash: bytes

    @property
    def position(self) -> Position:
        return Position(self.index, self.ballot, self.hash)


_HEAD = struct.Struct(">QQQQBI")


def chain_hash(
    previous: bytes, index: int, ballot: Ballot, time_us: int, kind: int, payload: bytes
) -> bytes:
    """The hash of an entry that follows an entry with hash `previous` (BLAKE2b, 16 bytes)."""
    digest = hashlib.blake2b(previous, digest_size=HASH_BYTES)
    digest.update(_HEAD.pack(index, ballot.term, ballot.node, time_us, kind, len(payload)))
    digest.update(payload)
    return digest.digest()


def make_entry(
    previous: Position, ballot: Ballot, time_us: int, kind: int, payload: bytes
) -> Entry:
    """The entry that follows `previous`."""
    index = previous.index + 1
    digest = chain_hash(previous.hash, index, ballot, time_us, kind, payload)
    return Entry(index, ballot, time_us, int(kind), payload, digest)


def follows(previous: Position, entries: Iterable[Entry]) -> bool:
    """Whether `entries` continue the log at `previous`: indexes, ballots, times and every hash."""
    index, ballot, digest = previous
    for entry in entries:
        if entry.index != index + 1 or entry.ballot < ballot:
            return False
        expected = chain_hash(
            digest, entry.index, entry.ballot, entry.time_us, entry.kind, entry.payload
        )
        if entry.hash != expected:
            return False
        index, ballot, digest = entry.position
    return True


class Voter(msgspec.Struct, frozen=True, array_like=True):
    node: int
    name: str


class VoterSet(msgspec.Struct, frozen=True, array_like=True):
    """Who votes, and the cluster they vote for: the payload of a `VOTERS` entry."""

    cluster_name: str
    cluster_id: int
    voters: tuple[Voter, ...]

    @property
    def ids(self) -> tuple[NodeId, ...]:
        return tuple(NodeId(voter.node) for voter in self.voters)


def encode_voters(voters: VoterSet) -> bytes:
    return msgspec.msgpack.encode(voters)


_voters_decoder = msgspec.msgpack.Decoder(VoterSet)


def decode_voters(payload: bytes) -> VoterSet:
    """Decode the payload of a `VOTERS` entry that a quorum or this server's own disk vouches for.

    Raises msgspec.DecodeError when the payload is not one.
    """
    return _voters_decoder.decode(payload)


class Successor(msgspec.Struct, frozen=True, array_like=True):
    """The cluster that goes on instead of a dissolved one: the payload of a `DISSOLVED` entry."""

    cluster_id: int
    server_name: str
    """One of its servers, for people."""


def encode_successor(successor: Successor) -> bytes:
    return msgspec.msgpack.encode(successor)


_successor_decoder = msgspec.msgpack.Decoder(Successor)


def decode_successor(payload: bytes) -> Successor:
    """Decode the payload of a `DISSOLVED` entry; one that cannot be read names no cluster.

    What it says is a hint where to go: that this cluster is dissolved does not depend on it.
    """
    try:
        return _successor_decoder.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Successor(0, "")


class SnapshotHead(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot is of. Its receiver compares all of it with what the snapshot holds."""

    position: Position
    time_us: int
    """The log's time at `position`."""
    voters_index: int
    voters_ballot: Ballot
    voters: VoterSet
    """The committed set in force at `position`, set by the entry at `voters_index`."""
    size_bytes: int
    digest: bytes
    """BLAKE2b of the whole file, 16 bytes."""
