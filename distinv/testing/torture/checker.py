"""Whether a history may have happened: one order of all commands explains every answer.

- Plain replay (`books`) of all commands by seq gives every answer, every read and the ledger.
- Real time: what began after another call's answer has a higher seq; a linearizable read is of
  a seq not lower than anything answered before it began.
- No acknowledged command is missing at the end, and none took effect twice.
- The commands of one client took effect in the order in which it made them.
- There is no place in the order that nobody can have.

It takes time in proportion to n log n for n calls: 100,000 of them take seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field, frozen

from distinv.testing.torture.books import Books, Result
from distinv.testing.torture.evidence import (
    Evidence,
    Placement,
    Problem,
    Told,
    gather,
    in_order,
    rows_of,
)
from distinv.testing.torture.history import Call

PROBLEMS_MAX = 100
"""One fault may spoil thousands of answers; the first ones tell what it is."""
_GRAVITY = ("lost", "twice", "order", "read", "client", "gap", "servers", "ledger", "answer")


@frozen
class Judgement:
    """What the checker found."""

    problems: tuple[Problem, ...]
    """At most `PROBLEMS_MAX` of them, grave ones first."""
    evidence: Evidence
    servers_compared: bool
    """The history tells in which state the servers were at the end."""

    @property
    def ok(self) -> bool:
        return not self.problems


def check(calls: list[Call]) -> Judgement:
    """Judge a history."""
    evidence = gather(calls)
    checking = _Checking(evidence, problems=list(evidence.problems))
    if checking.can_replay():
        checking.replay()
        checking.compare_ledger()
        checking.compare_reads()
        checking.check_gaps()
        checking.compare_servers()
    checking.check_real_time()
    checking.check_clients()
    problems = sorted(checking.problems, key=_gravity)
    return Judgement(tuple(problems[:PROBLEMS_MAX]), evidence, checking.servers_compared)


def _gravity(problem: Problem) -> int:
    return _GRAVITY.index(problem.kind) if problem.kind in _GRAVITY else len(_GRAVITY)


@define
class _Checking:
    evidence: Evidence
    problems: list[Problem]
    books: Books = field(factory=Books)
    results: dict[int, Result] = field(factory=dict)
    """By seq: what a plain replay gives."""
    servers_compared: bool = False

    def can_replay(self) -> bool:
        """Without the ledger nobody knows which of the open commands were done."""
        evidence = self.evidence
        if evidence.ledger.is_whole:
            return True
        text = "the ledger was not read to its end: what is lost is unknown"
        if evidence.unplaced:
            text += f", and {len(evidence.unplaced)} commands may have been done or not"
        self._complain("history", text)
        return not evidence.unplaced

    def replay(self) -> None:
        """Execute every command at its place, and compare what its caller was told."""
        for placement in in_order(self.evidence.placed):
            call, seq = placement.call, placement.seq
            try:
                result = self.books.apply(seq, call.operation, call.arguments)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                self._complain("history", f"this is no command: {error!r}", call)
                continue
            self.results[seq] = result
            self._compare(placement, result)

    def _compare(self, placement: Placement, result: Result) -> None:
        call, answer = placement.call, placement.call.answer
        if placement.accepted != (not result.code):
            wanted = f"refused as {result.code}" if result.code else "accepted"
            self._complain("answer", f"replay at seq {placement.seq}: it must be {wanted}", call)
        elif call.outcome == "accepted" and not answer.get("trimmed"):
            if rows_of(answer.get("levels", ())) != result.levels:
                self._complain("answer", f"replay gives the levels {result.levels}", call)
        elif call.outcome == "refused":
            self._compare_refusal(call, result)

    def _compare_refusal(self, call: Call, result: Result) -> None:
        answer = call.answer
        if answer.get("code") != result.code:
            self._complain("answer", f"replay: it must be refused as {result.code}", call)
        elif "shortages" in answer and rows_of(answer["shortages"]) != result.shortages:
            self._complain("answer", f"replay gives the shortages {result.shortages}", call)
        elif "current" in answer and answer["current"] != result.current:
            self._complain("answer", f"replay: {result.current} were on hand", call)

    def compare_ledger(self) -> None:
        """Every accepted command stands in the ledger as it was done; nothing else does."""
        ledger = self.evidence.ledger
        if not ledger.is_whole:
            return
        for seq, result in self.results.items():
            call = self.evidence.placed[seq].call
            found = tuple(ledger.rows.get(seq, ()))
            if result.rows and not found:
                self._complain("lost", f"seq {seq} was acknowledged and is not in the ledger", call)
            elif found != result.rows:
                text = f"seq {seq} stands in it as {found}, replay gives {result.rows}"
                self._complain("ledger", text, call)
            elif found and ledger.references[seq] != call.reference:
                text = f"seq {seq} stands in it as {ledger.references[seq]!r}"
                self._complain("ledger", text, call)

    def compare_reads(self) -> None:
        """Every level read is what it was at the seq that the answer is of."""
        for call in self.evidence.calls:
            if call.operation != "levels" or call.outcome != "value" or call.seq is None:
                continue
            for sku, location, on_hand, version in call.answer["levels"]:
                true = self.books.level_at((sku, location), call.seq)
                if (on_hand, version) != true:
                    text = f"{sku} at {location} was {true[0]} (version {true[1]}) at {call.seq}"
                    self._complain("read", text, call)
                    break
            if call.seq < call.arguments.get("min_seq", 0):
                self._complain("read", "it is older than the caller asked for", call)

    # --- order ----------------------------------------------------------------------------------

    def check_real_time(self) -> None:
        """Sweep over all beginnings and answers in the order of time."""
        told = sorted(self.evidence.told, key=lambda each: each.at)
        floor: Told | None = None
        at = 0
        for begun, seq, least, call in sorted(self._beginnings(), key=lambda each: each[:2]):
            while at < len(told) and told[at].at < begun:
                if floor is None or told[at].seq > floor.seq:
                    floor = told[at]
                at += 1
            if floor is not None and seq < floor.seq + least:
                kind = "read" if not least else "order"
                text = f"it has seq {seq}, but began after {floor.seq} had been answered"
                self._complain(kind, text, call, floor.call)

    def _beginnings(self) -> Iterator[tuple[int, int, int, Call]]:
        """(begun, seq, how much higher than what was told before the seq must be, call)."""
        for placement in self.evidence.placed.values():
            yield placement.begun, placement.seq, 1, placement.call
        for call in self.evidence.calls:
            if call.is_command or call.seq is None or call.operation == "resolve":
                continue
            if call.arguments.get("read", "linearizable") == "linearizable":
                yield call.start, call.seq, 0, call

    def check_clients(self) -> None:
        """One client's commands take effect in the order in which it made them."""
        seq_of = {
            placement.line: placement.seq
            for placement in self.evidence.placed.values()
            if placement.line is not None
        }
        last: dict[str, tuple[int, Call]] = {}
        for line, call in enumerate(self.evidence.calls):  # in the order in which they began
            seq = seq_of.get(line)
            if seq is None:
                continue
            before = last.get(call.client)
            if before is not None and before[0] >= seq:
                text = f"{call.client} made seq {before[0]} before seq {seq}"
                self._complain("client", text, before[1], call)
            else:
                last[call.client] = (seq, call)

    def check_gaps(self) -> None:
        """Every place in the order is somebody's; of those unknown there are few enough."""
        placed, last = self.evidence.placed, self.evidence.last_seq
        holes = [seq for seq in range(1, last + 1) if seq not in placed]
        unplaced = self.evidence.unplaced
        if len(holes) > len(unplaced):
            some = ", ".join(map(str, holes[:10]))
            text = f"{len(holes)} seqs are nobody's ({some}), {len(unplaced)} commands are open"
            self._complain("gap", text)

    # --- the servers ----------------------------------------------------------------------------

    def compare_servers(self) -> None:
        """At the end all servers are in one state, and it is the replay's."""
        for call in self.evidence.calls:
            if call.operation != "servers" or call.outcome != "value":
                continue
            servers = call.answer["servers"]
            self.servers_compared |= bool(servers)
            if len({(each["seq"], each["digest"], each["state_digest"]) for each in servers}) > 1:
                self._complain("servers", "they are not in the same state", call)
            for each in servers:
                if each["seq"] == self.evidence.last_seq and each["digest"] != self.books.digest():
                    text = f"{each['name']} has other stock than a plain replay: "
                    self._complain("servers", text + self.books.digest(), call)

    def _complain(self, kind: str, text: str, *calls: Call) -> None:
        self.problems.append(Problem(kind, text, calls))
