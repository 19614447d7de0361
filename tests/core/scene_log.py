"""What scenes are made of: logs, voter sets and commands, made the same way every time."""

from __future__ import annotations

from collections.abc import Iterable

from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    Ballot,
    Entry,
    EntryKind,
    NodeId,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.wire.batch import SessionCommand

MS = 1_000
CLUSTER_ID = 77


def voter_set(ids: Iterable[int], cluster_id: int = CLUSTER_ID) -> VoterSet:
    return VoterSet("shop", cluster_id, tuple(Voter(id, f"s{id}") for id in ids))


def birth_entry(ids: Iterable[int]) -> Entry:
    payload = encode_voters(voter_set(ids))
    return make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, payload)


def log_of(ids: Iterable[int], *tail: tuple[int, int]) -> list[Entry]:
    """A log: the birth, then an entry for each (term, owner). Equal calls, equal logs."""
    entries = [birth_entry(ids)]
    for term, owner in tail:
        payload = f"{len(entries) + 1} {term}.{owner}".encode()
        ballot = Ballot(term, NodeId(owner))
        entries.append(make_entry(entries[-1].position, ballot, 0, EntryKind.NOOP, payload))
    return entries


def command(number: int, session: int = 1) -> SessionCommand:
    return SessionCommand(session, number, 0, f"command {session}:{number}".encode())
