"""What a history proves: which command has which place in the order, and who was told when.

A command's place is known from its answer, from a later `resolve` of its key, or, when nobody
was ever told, from the ledger that was read at the end. Attempts with one idempotency key are one
command: it takes effect at most once, though refused attempts have places of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from attrs import define, field, frozen

from distinv.testing.torture.history import Call

_UNHEARD = ("unknown", "abandoned")


@frozen
class Problem:
    """Something that must never happen."""

    kind: str
    """lost, twice, order, answer, read, ledger, gap, servers, client or history."""
    text: str
    calls: tuple[Call, ...] = ()
    """The calls that prove it."""


@frozen
class Placement:
    """One place in the order."""

    seq: int
    call: Call
    """By its words: operation and arguments."""
    accepted: bool
    begun: int
    """It cannot have been sent before this."""
    line: int | None
    """Where the call that was executed stands in the history; None when that is not certain."""


@frozen
class Told:
    """Somebody learned that everything up to `seq` has happened."""

    at: int
    seq: int
    call: Call


@define
class Ledger:
    """What stood in the ledger when it was read at the end."""

    rows: dict[int, list[tuple[Any, ...]]] = field(factory=dict)
    """Per seq: (sku, location, delta, on_hand_after, kind), in order."""
    references: dict[int, str] = field(factory=dict)
    is_whole: bool = False
    """It was read from its beginning to its end."""


@define
class Evidence:
    """Everything that a history proves, and what is wrong with it by itself."""

    calls: list[Call]
    placed: dict[int, Placement] = field(factory=dict)
    told: list[Told] = field(factory=list)
    unplaced: list[Call] = field(factory=list)
    """Commands of which nobody knows whether they were refused; each may have one place."""
    never: dict[str, Call] = field(factory=dict)
    """By reference: commands that certainly had no effect, and who said so."""
    ledger: Ledger = field(factory=Ledger)
    problems: list[Problem] = field(factory=list)

    @property
    def last_seq(self) -> int:
        return max([*self.placed, *self.ledger.rows, *(told.seq for told in self.told)], default=0)


def gather(calls: list[Call]) -> Evidence:
    """Read a history."""
    gathering = _Gathering(Evidence(calls))
    gathering.read()
    return gathering.evidence


_Line: TypeAlias = tuple[int, Call]
"""A call, and where it stands in the history."""


class _Gathering:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._resolved: dict[str, Call] = {}
        """By key: the answer of a `resolve` that says what became of the command."""
        self._attempts: dict[str, list[_Line]] = {}
        """By the callers' own keys, in the order in which they began."""
        self._unheard: dict[str, list[_Line]] = {}
        """By reference: commands whose callers never learned what became of them."""

    def read(self) -> None:
        evidence = self.evidence
        for call in evidence.calls:
            if call.operation == "resolve":
                self._read_resolve(call)
            elif call.operation == "ledger":
                self._read_page(call)
            if call.seq is not None and call.end is not None and call.outcome != "error":
                evidence.told.append(Told(call.end, call.seq, call))
        for line in enumerate(evidence.calls):
            if line[1].is_command:
                self._read_command(line)
        for attempts in self._attempts.values():
            self._read_attempts(attempts)
        self._fill()
        evidence.unplaced += [call for lines in self._unheard.values() for _, call in lines]

    # --- questions ------------------------------------------------------------------------------

    def _read_resolve(self, call: Call) -> None:
        key = str(call.arguments.get("key", ""))
        if call.outcome not in ("accepted", "refused", "none"):
            return
        first = self._resolved.setdefault(key, call)
        if (first.outcome, first.seq) == (call.outcome, call.seq):
            return
        if first.outcome == "none" and ":" not in key:
            self._resolved[key] = call  # "not so far", says the documentation
            return
        self._complain("answer", f"{key} was resolved in two ways", first, call)

    def _read_page(self, call: Call) -> None:
        if call.outcome != "value":
            return
        ledger = self.evidence.ledger
        if call.arguments.get("after") is None:
            ledger.rows, ledger.references = {}, {}
        for seq, sku, location, delta, on_hand, kind, reference in call.answer["entries"]:
            ledger.rows.setdefault(seq, []).append((sku, location, delta, on_hand, kind))
            known = ledger.references.setdefault(seq, reference)
            if known != reference:
                self._complain("ledger", f"seq {seq} has two references", call)
        ledger.is_whole = call.answer.get("next") is None

    # --- commands -------------------------------------------------------------------------------

    def _read_command(self, line: _Line) -> None:
        at, call = line
        outcome = call.outcome
        if outcome in ("none", "value", "error"):
            self._complain("client", "a command was answered by something that is no answer", call)
        elif outcome == "refused":
            if call.seq is not None:
                self._place(Placement(call.seq, call, False, call.start, at))
        elif call.key:
            self._attempts.setdefault(call.key, []).append(line)
        elif outcome == "accepted":
            if call.answer.get("replayed"):
                self._complain("answer", "it has no key, and was answered as a repetition", call)
            self._place(Placement(call.seq or 0, call, True, call.start, at))
        elif outcome == "unavailable":
            self.evidence.never[call.reference] = call
        else:
            self._read_unheard(line)

    def _read_unheard(self, line: _Line) -> None:
        at, call = line
        resolved = self._resolved.get(str(call.answer.get("key", "")))
        if resolved is None:
            self._unheard.setdefault(call.reference, []).append(line)
        elif resolved.outcome == "none":
            self.evidence.never[call.reference] = resolved
        elif resolved.seq is not None:
            accepted = resolved.outcome == "accepted"
            # What was resolved is what the answer would have been: compare it as one.
            answered = Call(
                call.client,
                call.start,
                resolved.end,
                call.operation,
                call.arguments,
                resolved.answer,
                resolved.seq,
            )
            self._place(Placement(resolved.seq, answered, accepted, call.start, at))

    def _read_attempts(self, attempts: list[_Line]) -> None:
        """All attempts with one key that were not refused."""
        key, reference = attempts[0][1].key, attempts[0][1].reference
        done = [call for _, call in attempts if call.outcome == "accepted"]
        resolved = self._resolved.get(key)
        if resolved is not None and resolved.outcome == "accepted":
            done.append(resolved)
        first = [
            (at, call)
            for at, call in attempts
            if call.outcome == "accepted" and not call.answer.get("replayed")
        ]
        if len({call.seq for call in done}) > 1 or len(first) > 1:
            self._complain("twice", f"the key {key} took effect more than once", *done)
        unheard = [line for line in attempts if line[1].outcome in _UNHEARD]
        if done:
            possible = first or unheard or attempts
            begun = min(call.start for _, call in possible)
            at = possible[0][0] if len(possible) == 1 else None
            self._place(Placement(done[0].seq or 0, possible[0][1], True, begun, at))
            # The others may have been refused before, each at a place of its own.
            self.evidence.unplaced += [call for _, call in unheard[0 if first else 1 :]]
        elif unheard:
            self._unheard.setdefault(reference, []).extend(unheard)
        else:
            self.evidence.never[reference] = attempts[-1][1]

    # --- the ledger -----------------------------------------------------------------------------

    def _fill(self) -> None:
        """Give places to commands that nobody was told of, as far as the ledger holds them."""
        ledger, placed = self.evidence.ledger, self.evidence.placed
        by_reference = {each.call.reference: each.call for each in placed.values()}
        for seq, reference in sorted(ledger.references.items()):
            if seq in placed:
                continue
            lines = self._unheard.pop(reference, None)
            if lines is not None:
                begun = min(call.start for _, call in lines)
                at = lines[0][0] if len(lines) == 1 else None
                self._place(Placement(seq, lines[0][1], True, begun, at))
                self.evidence.unplaced += [call for _, call in lines[1:]]
            else:
                self._complain_of_row(seq, reference, by_reference.get(reference))

    def _complain_of_row(self, seq: int, reference: str, placed: Call | None) -> None:
        said = self.evidence.never.get(reference)
        if said is not None:
            what = "lost", f"{reference} was said to have no effect, and is in the ledger at {seq}"
            self._complain(*what, said)
        elif placed is not None:
            self._complain("twice", f"{reference} is in the ledger at seq {seq} as well", placed)
        else:
            self._complain("ledger", f"seq {seq} ({reference!r}) is in it, and nobody asked for it")

    # --- what all of this ends in ---------------------------------------------------------------

    def _place(self, placement: Placement) -> None:
        seq, placed = placement.seq, self.evidence.placed
        if seq < 1:
            self._complain("answer", "a command was answered without a seq", placement.call)
            return
        first = placed.setdefault(seq, placement)
        if first is not placement:
            self._complain("twice", f"seq {seq} was given twice", first.call, placement.call)

    def _complain(self, kind: str, text: str, *calls: Call) -> None:
        self.evidence.problems.append(Problem(kind, text, calls))


def in_order(placed: dict[int, Placement]) -> Iterator[Placement]:
    """The placements by seq."""
    return (placed[seq] for seq in sorted(placed))


def rows_of(answer: Iterable[Iterable[Any]]) -> tuple[tuple[Any, ...], ...]:
    """Rows of an answer, as they are compared."""
    return tuple(sorted(tuple(row) for row in answer))
