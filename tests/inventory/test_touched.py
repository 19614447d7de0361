"""Does a store hold anything of clients? What only concerns the cluster does not count."""

from __future__ import annotations

from pathlib import Path

from distinv.entry import (
    Ballot,
    EntryKind,
    Successor,
    Voter,
    VoterSet,
    encode_successor,
    encode_voters,
    make_entry,
)
from distinv.inventory.calls import put_item
from distinv.inventory.machine import StateMachine
from distinv.wire.batch import OpenCommand, SessionCommand, encode_batch, session_id

VOTERS = encode_voters(VoterSet("shop", 77, (Voter(1, "s1"),)))


def apply(machine: StateMachine, kind: EntryKind, payload: bytes = b"") -> None:
    machine.apply(make_entry(machine.position, Ballot(1, 1), 1, kind, payload))


def test_what_concerns_the_cluster_does_not_touch() -> None:
    machine = StateMachine()
    apply(machine, EntryKind.VOTERS, VOTERS)
    apply(machine, EntryKind.NOOP)
    apply(machine, EntryKind.DISSOLVED, encode_successor(Successor(88, "s2")))
    assert not machine.touched
    assert (machine.position.index, machine.seq, machine.session_count) == (3, 0, 0)


def test_a_session_touches() -> None:
    machine = StateMachine()
    apply(machine, EntryKind.COMMANDS, encode_batch([OpenCommand(5, "till")]))
    assert machine.touched
    assert machine.seq == 0


def test_a_command_touches_for_ever(tmp_path: Path) -> None:
    path = str(tmp_path / "store.sqlite3")
    machine = StateMachine(path)
    apply(machine, EntryKind.COMMANDS, encode_batch([OpenCommand(5, "till")]))
    command = SessionCommand(session_id(1, 0), 1, 1, put_item("MUG").encode())
    apply(machine, EntryKind.COMMANDS, encode_batch([command]))
    assert machine.seq == 1
    machine.close()
    again = StateMachine(path)
    assert again.touched
    again.close()
