"""What must be true of every run, checked without asking the code that is being checked.

All checks are incremental: each entry is looked at once when it is first applied anywhere, each
answer once when it arrives.
"""

from __future__ import annotations

from bisect import bisect

from attrs import define

from distinv.entry import Ballot, Entry, EntryKind, NodeId, Position, decode_voters
from distinv.inventory import commands as wire
from distinv.testing.simulator.model import Expected, PlainModel

VOTERS_MAX = 5


class SafetyViolation(AssertionError):
    """Something happened that must never happen."""


@define
class Pledge:
    """One command of one client, from call to answer."""

    client: str
    issue: int
    """The client's calls are counted as it makes them."""
    floor: int
    """The highest seq that anybody had been told of when the call began."""


class History:
    """One history of commits, one leader per ballot, every answer as a plain replay gives it."""

    def __init__(self) -> None:
        self.model = PlainModel()
        self.hashes: list[bytes] = [b""]
        """Of the committed entry at each index, as first applied anywhere."""
        self._leaders: dict[Ballot, tuple[NodeId, int]] = {}
        self.time_us = 0
        """Of the last entry."""
        self.told_seq = 0
        """The highest seq that any client has been told of."""
        self._seqs_of: dict[str, list[tuple[int, int]]] = {}
        """Per client: (issue, seq) of every answer, ascending in both."""
        self._digests: dict[int, str] = {}
        self._denied: list[tuple[int, int]] = []
        self.answers = 0
        self.reads = 0

    def on_leader(self, node: NodeId, boot: int, ballot: Ballot) -> None:
        """A process leads in `ballot`: nobody else ever does, not even its own next life."""
        first = self._leaders.setdefault(ballot, (node, boot))
        if first != (node, boot):
            raise SafetyViolation(f"two leaders in ballot {ballot}: {first} and {(node, boot)}")

    @property
    def ballots(self) -> int:
        return len(self._leaders)

    def on_applied(self, who: str, entry: Entry) -> bool:
        """A server applied a committed entry; True when it is the first to do so."""
        index = entry.index
        if index < len(self.hashes):
            if self.hashes[index] != entry.hash:
                raise SafetyViolation(f"{who} applied another entry {index} than others did")
            return False
        if index != len(self.hashes):
            raise SafetyViolation(f"{who} applied {index} out of order")
        self.hashes.append(entry.hash)
        if entry.time_us < self.time_us:
            raise SafetyViolation(f"{who} applied entry {index}: the log's time goes back")
        self.time_us = entry.time_us
        if entry.kind == EntryKind.VOTERS:
            self._on_voters(who, entry)
        self.model.apply(entry)
        return True

    def on_installed(self, who: str, position: Position) -> None:
        """A server took another's store over instead of applying entry after entry."""
        if position.index >= len(self.hashes):
            raise SafetyViolation(f"{who} installs entry {position.index}, which nobody applied")
        if self.hashes[position.index] != position.hash:
            raise SafetyViolation(f"{who} installs another entry {position.index} than was applied")

    def _on_voters(self, who: str, entry: Entry) -> None:
        count = len(decode_voters(entry.payload).voters)
        if count % 2 == 0 or count > VOTERS_MAX:
            raise SafetyViolation(f"{who} applied entry {entry.index} with {count} voters")

    def on_digest(self, who: str, index: int, digest: str) -> None:
        """Stores at the same position have equal digests."""
        first = self._digests.setdefault(index, digest)
        if first != digest:
            raise SafetyViolation(f"{who} has another state at {index} than others had")

    def on_answer(self, pledge: Pledge, session: int, number: int, outcome: bytes) -> None:
        """A client was told what became of a command."""
        self.answers += 1
        expected = self.model.outcomes.get((session, number))
        what = f"{pledge.client} {session:x}:{number}"
        if expected is None:
            raise SafetyViolation(f"{what} was acknowledged, but no committed entry holds it")
        answer = wire.decode_outcome(outcome)
        _compare(what, expected, answer)
        if expected.kind == "voided":
            return
        if not expected.replayed:
            if expected.seq <= pledge.floor:
                raise SafetyViolation(
                    f"{what} has seq {expected.seq}, but began after {pledge.floor} was answered"
                )
            self._check_fifo(pledge, expected.seq)
        self.told_seq = max(self.told_seq, expected.seq)

    def _check_fifo(self, pledge: Pledge, seq: int) -> None:
        """A client's commands take effect in the order it issued them."""
        seqs = self._seqs_of.setdefault(pledge.client, [])
        at = bisect(seqs, (pledge.issue, seq))
        if at and seqs[at - 1][1] >= seq:
            raise SafetyViolation(f"{pledge.client}: {seqs[at - 1]} before ({pledge.issue}, {seq})")
        if at < len(seqs) and seqs[at][1] <= seq:
            raise SafetyViolation(f"{pledge.client}: ({pledge.issue}, {seq}) before {seqs[at]}")
        seqs.insert(at, (pledge.issue, seq))

    def on_unavailable(self, session: int, number: int) -> None:
        """A client was told that a command certainly had no effect, nor ever will."""
        if number:
            self._denied.append((session, number))

    def check_denied(self) -> None:
        """At the end of a run: the numbers of such commands were voided, if decided at all."""
        for session, number in self._denied:
            outcome = self.model.outcomes.get((session, number))
            if outcome is not None and outcome.kind != "voided":
                raise SafetyViolation(
                    f"{session:x}:{number} was denied, but took effect: {outcome}"
                )

    def on_read(
        self, client: str, level: tuple[str, str], floor: int, seq: int, on_hand: int
    ) -> None:
        """A linearizable read: current as of `seq`, which is not before the read began."""
        self.reads += 1
        if seq < floor:
            raise SafetyViolation(
                f"{client} read a state of seq {seq}, {floor} was answered before"
            )
        if seq > self.model.seq:
            raise SafetyViolation(f"{client} read seq {seq}, which is not committed")
        truth = self.model.on_hand_at(level, seq)
        if truth != on_hand:
            raise SafetyViolation(f"{client} read {level} = {on_hand} at {seq}, it was {truth}")
        self.told_seq = max(self.told_seq, seq)


def _compare(what: str, expected: Expected, answer: wire.Outcome) -> None:
    if isinstance(answer, wire.Voided):
        got = Expected("voided")
    elif isinstance(answer, wire.Refused):
        got = Expected("refused", answer.seq, answer.code)
    elif isinstance(answer, wire.Accepted):
        levels = tuple(sorted((row.sku, row.location, row.on_hand) for row in answer.levels))
        got = Expected("accepted", answer.seq, "", levels, answer.replayed)
    else:
        kind = "refused" if answer.code else "accepted"
        got = Expected(kind, answer.seq, answer.code, expected.levels, answer.replayed)
    if got != expected:
        raise SafetyViolation(f"{what} was answered {got}, a plain replay gives {expected}")
