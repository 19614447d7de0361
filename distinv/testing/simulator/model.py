"""The inventory as one would write it on a blackboard: the oracle of the checkers.

It shares the command encoding with the product and nothing else: no cache, no database, no
cleverness. Only what the simulated clients use is here.
"""

from __future__ import annotations

from bisect import bisect
from typing import Any, TypeAlias

from attrs import Factory, define, frozen

from distinv.entry import Entry, EntryKind
from distinv.inventory import commands as wire
from distinv.wire.batch import CloseSession, OpenCommand, SessionCommand, decode_batch, session_id

Levels: TypeAlias = dict[tuple[str, str], int]


@frozen
class Expected:
    """What a command must have been answered."""

    kind: str
    """accepted, refused, voided"""
    seq: int = 0
    code: str = ""
    levels: tuple[tuple[str, str, int], ...] = ()
    replayed: bool = False


@define
class _Session:
    last: int = 0
    closed: bool = False


@define
class PlainModel:
    """Replays a committed log."""

    seq: int = 0
    items: list[str] = Factory(list)
    locations: list[str] = Factory(lambda: ["main"])
    levels: Levels = Factory(dict)
    sessions: dict[int, _Session] = Factory(dict)
    nonces: dict[int, int] = Factory(dict)
    outcomes: dict[tuple[int, int], Expected] = Factory(dict)
    keys: dict[str, tuple[Any, Expected]] = Factory(dict)
    history: dict[tuple[str, str], list[tuple[int, int]]] = Factory(dict)
    """Per level: (seq, on_hand after it), ascending."""

    def apply(self, entry: Entry) -> None:
        if entry.kind != EntryKind.COMMANDS:
            return
        for offset, command in enumerate(decode_batch(entry.payload)):
            if isinstance(command, OpenCommand):
                if command.nonce not in self.nonces:
                    opened = session_id(entry.index, offset)
                    self.nonces[command.nonce] = opened
                    self.sessions[opened] = _Session()
            elif isinstance(command, SessionCommand):
                self._numbered(command)
            elif isinstance(command, CloseSession) and command.session in self.sessions:
                self.sessions[command.session].closed = True

    def _numbered(self, command: SessionCommand) -> None:
        session = self.sessions.get(command.session)
        if session is None or session.closed or command.number != session.last + 1:
            return
        session.last = command.number
        key = (command.session, command.number)
        if not command.command:
            self.outcomes[key] = Expected("voided")
        else:
            self.outcomes[key] = self._execute(wire.decode_command_untrusted(command.command))

    def _execute(self, command: wire.Command) -> Expected:
        if command.key in self.keys:
            payload, first = self.keys[command.key]
            if payload == command.operations:
                return Expected("accepted", first.seq, "", first.levels, True)
            self.seq += 1
            return Expected("refused", self.seq, "idempotency_key_reused")
        self.seq += 1
        scratch = dict(self.levels)
        items, locations = list(self.items), list(self.locations)
        touched: list[tuple[str, str]] = []
        for operation in command.operations:
            code = self._operate(operation, scratch, items, locations, touched)
            if code:
                return Expected("refused", self.seq, code)
        self.levels, self.items, self.locations = scratch, items, locations
        for level in touched:
            self.history.setdefault(level, []).append((self.seq, scratch[level]))
        expected = Expected(
            "accepted",
            self.seq,
            "",
            tuple(sorted((sku, location, scratch[sku, location]) for sku, location in touched)),
        )
        if command.key:
            self.keys[command.key] = (command.operations, expected)
        return expected

    def _operate(
        self,
        operation: Any,
        levels: Levels,
        items: list[str],
        locations: list[str],
        touched: list[tuple[str, str]],
    ) -> str:
        """The code of the refusal, "" when it is done."""
        if isinstance(operation, wire.PutItem):
            if operation.sku not in items:
                items.append(operation.sku)
            return ""
        if isinstance(operation, wire.PutLocation):
            if operation.name not in locations:
                locations.append(operation.name)
            return ""
        moves: Levels = {}
        if isinstance(operation, wire.Transfer):
            for sign, end in ((-1, operation.source), (1, operation.destination)):
                for line in operation.lines:
                    level = (line.sku, end)
                    moves[level] = moves.get(level, 0) + sign * line.quantity
        elif isinstance(operation, wire.SetOnHand):
            level = (operation.sku, operation.location)
            moves[level] = operation.quantity - levels.get(level, 0)
        else:
            sign = -1 if isinstance(operation, wire.Ship) else 1
            for line in operation.lines:
                level = (line.sku, line.location or operation.location)
                moves[level] = moves.get(level, 0) + sign * line.quantity
        for sku, location in moves:
            if sku not in items:
                return "unknown_item"
            if location not in locations:
                return "unknown_location"
        if (
            isinstance(operation, wire.SetOnHand)
            and operation.if_on_hand is not None
            and levels.get((operation.sku, operation.location), 0) != operation.if_on_hand
        ):
            return "stale_version"
        if any(levels.get(level, 0) + delta < 0 for level, delta in moves.items()):
            return "insufficient_stock"
        for level, delta in moves.items():
            levels[level] = levels.get(level, 0) + delta
            if level not in touched:
                touched.append(level)
        return ""

    def on_hand_at(self, level: tuple[str, str], seq: int) -> int:
        """What the level was right after `seq`."""
        steps = self.history.get(level, [])
        at = bisect(steps, seq, key=lambda step: step[0])
        return steps[at - 1][1] if at else 0
