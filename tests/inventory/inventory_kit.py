"""A log for tests: it makes entries, feeds them to a state machine and decodes what comes back."""

from __future__ import annotations

from typing import Any, TypeVar

from distinv.config import Limits
from distinv.entry import (
    ORIGIN,
    Ballot,
    Entry,
    EntryKind,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.errors import DistinvError
from distinv.inventory.calls import Call
from distinv.inventory.commands import Outcome, decode_outcome
from distinv.inventory.machine import Applied, StateMachine
from distinv.inventory.store import InventoryStore
from distinv.model import Level, Receipt
from distinv.wire.batch import CloseSession, LogCommand, OpenCommand, SessionCommand, encode_batch

T = TypeVar("T")

START_US = 1_700_000_000_000_000
DAY_US = 24 * 3600 * 1_000_000
BALLOT = Ballot(1, 7)
VOTERS = VoterSet("shop", 5, (Voter(7, "a"), Voter(8, "b"), Voter(9, "c")))


class Clock:
    """Microseconds that move when told to."""

    def __init__(self) -> None:
        self.now_us = START_US

    def __call__(self) -> int:
        return self.now_us


class CheckedStore(InventoryStore):
    """A store that asserts every invariant after every command, and that a refusal does nothing."""

    def __init__(self, path: str = ":memory:", limits: Limits | None = None) -> None:
        self.now = Clock()
        super().__init__(path, name="till", clock=self.now, limits=limits)

    def stock(self) -> dict[tuple[str, str], Level]:
        return {(level.sku, level.location): level for level in self.iter_levels()}

    def catalogue(self) -> tuple[Any, ...]:
        return self.list_items(limit=1_000).items, self.list_locations()

    def _call(self, call: Call[T]) -> T:
        seq, stock, catalogue = self.seq, self.stock(), self.catalogue()
        try:
            value = super()._call(call)
        except DistinvError as refusal:
            self._check_refusal(refusal, seq)
            assert (self.stock(), self.catalogue()) == (stock, catalogue)
            raise
        if isinstance(value, Receipt):
            assert self.seq == seq + (not value.replayed)
        assert self.machine.problems() == []
        return value

    def _check_refusal(self, refusal: DistinvError, before: int) -> None:
        assert refusal.seq == self.seq == before + 1
        assert self.machine.problems() == []


class Log:
    """The committed log of one cluster, applied to one machine as it grows."""

    def __init__(self, machine: StateMachine | None = None, limits: Limits | None = None) -> None:
        self.machine = machine or StateMachine(":memory:", limits)
        self.entries: list[Entry] = []
        self.now_us = START_US

    def append(self, *commands: LogCommand) -> list[Applied]:
        """One entry with these commands."""
        return self.append_payload(encode_batch(list(commands)))

    def append_payload(self, payload: bytes, kind: int = EntryKind.COMMANDS) -> list[Applied]:
        previous = self.entries[-1].position if self.entries else ORIGIN
        entry = make_entry(previous, BALLOT, self.now_us, kind, payload)
        self.entries.append(entry)
        return self.machine.apply(entry)

    def set_voters(self, voters: VoterSet = VOTERS) -> None:
        self.append_payload(encode_voters(voters), EntryKind.VOTERS)

    def open(self, nonce: int = 1, name: str = "till") -> int:
        (applied,) = self.append(OpenCommand(nonce, name))
        assert applied.kind == "opened"
        return applied.session

    def close(self, session: int) -> Applied:
        (applied,) = self.append(CloseSession(session))
        return applied

    def send(
        self, session: int, number: int, command: Call[Any] | bytes, lowest: int = 0
    ) -> Applied:
        """One numbered command in an entry of its own; empty bytes are a void."""
        data = command if isinstance(command, bytes) else command.encode()
        (applied,) = self.append(SessionCommand(session, number, lowest, data))
        return applied

    def replay(self, machine: StateMachine, last: int | None = None) -> list[Applied]:
        """Apply what `machine` has not seen yet, up to index `last`."""
        results = []
        for entry in self.entries[machine.position.index : last]:
            results += machine.apply(entry)
        return results


def outcome(applied: Applied) -> Outcome:
    assert applied.kind == "result"
    return decode_outcome(applied.result)
