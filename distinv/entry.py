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
    """A batch of client commands (`distinv.wire.messages.LogCommand`)."""


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
