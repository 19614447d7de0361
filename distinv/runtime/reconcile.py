"""Do a store and a journal tell one story? Looked at once, before a server says a word.

Invariant: the store is never below the journal's base, nor above the journal's end, and both have
the same entry where the store stands. One crash breaks that: between the exchange of the store by
a snapshot and the journal's new base. The snapshot's head, which is kept until that base is
durable, tells this from a journal of which a part is missing. What such a store holds is
committed, so the journal begins anew behind it; the promise is kept.
"""

from __future__ import annotations

from attrs import evolve

from distinv.entry import EntryKind, SnapshotHead, decode_voters
from distinv.errors import StorageError
from distinv.inventory.machine import StateMachine
from distinv.storage.api import BaseRecord, Recovered

_WAY_FORWARD = (
    "Keep the directory. If the other servers of the cluster run, start this one with an empty "
    "data directory: it joins as a new server and copies everything. Without them, restore the "
    "directory from a backup"
)


def reconcile(
    machine: StateMachine, recovered: Recovered, installed: SnapshotHead | None, where: object
) -> tuple[Recovered, BaseRecord | None]:
    """What the server begins with, and what the journal has to be told first, if anything.

    `installed` is the snapshot that was being installed last. A store of an earlier version
    learns who votes. Raises StorageError for two different stories, naming `where` they lie.
    """
    position = machine.position
    base = recovered.base.position.index if recovered.base is not None else 0
    if position.index < base:
        raise StorageError(
            f"{where}: the store is at log entry {position.index}, but the journal begins after "
            f"{base}: the store is older than the journal. {_WAY_FORWARD}."
        )
    if position.index == 0:
        return recovered, None
    _learn_voters(machine, recovered, base)
    if _hash_at(recovered, position.index) == position.hash:
        return recovered, None
    voters = machine.voters
    was_installed = installed is not None and installed.position == position
    if was_installed and voters is not None and recovered.node is not None:
        begun = BaseRecord(position, machine.time_us, *voters)
        return evolve(recovered, base=begun, entries=()), begun
    end = base + len(recovered.entries)
    if position.index > end:
        raise StorageError(
            f"{where}: the store is at log entry {position.index}, but the journal ends at {end}: "
            f"a part of the journal is missing. {_WAY_FORWARD}."
        )
    raise StorageError(
        f"{where}: the store and the journal tell different stories of log entry "
        f"{position.index}: they are not of one server. {_WAY_FORWARD}."
    )


def _hash_at(recovered: Recovered, index: int) -> bytes | None:
    """None behind the journal's end."""
    base = recovered.base
    if base is not None and index == base.position.index:
        return base.position.hash
    before = 0 if base is None else base.position.index
    return (
        recovered.entries[index - before - 1].hash
        if index <= before + len(recovered.entries)
        else None
    )


def _learn_voters(machine: StateMachine, recovered: Recovered, base: int) -> None:
    """A store of an earlier version does not know who votes; the journal does."""
    if machine.voters is not None:
        return
    for entry in reversed(recovered.entries[: machine.position.index - base]):
        if entry.kind == EntryKind.VOTERS:
            machine.learn_voters(entry.index, entry.ballot, decode_voters(entry.payload))
            return
    if recovered.base is not None:
        at = recovered.base
        machine.learn_voters(at.voters_index, at.voters_ballot, at.voters)
