"""Messages that fit the moment: every type, with numbers, ballots and places that are in use.

A message whose ballot is long gone is dropped at the first look. To get behind that, the fields
are drawn from what the server under attack knows itself: the ballots it promised, the ends of its
log, the ids of its voters, its sessions. What is drawn need not go together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from attrs import define, field

from distinv.entry import NO_BALLOT, ORIGIN, Ballot, Entry, Position, make_entry
from distinv.testing.fuzzing.mutation import EDGES
from distinv.wire.messages import Message

KINDS: tuple[type, ...] = get_args(Message)
_NUMBERS = tuple(number for number in EDGES if 0 <= number < 2**63)


@define
class Pool:
    """What fields are drawn from."""

    numbers: list[int] = field(factory=lambda: [1, 2, 3])
    ballots: list[Ballot] = field(factory=lambda: [NO_BALLOT, Ballot(1, 1)])
    positions: list[Position] = field(factory=lambda: [ORIGIN])
    texts: list[str] = field(factory=lambda: ["shop", "bully", "server-1", "no_leader"])
    bodies: list[bytes] = field(factory=lambda: [b""])
    """Commands, questions, answers and whole messages, for fields of bytes."""
    payloads: list[bytes] = field(factory=lambda: [b""])
    """Of log entries."""
    named: dict[str, list[Any]] = field(factory=dict)
    """For fields of a name, most of the time."""


class Maker:
    """Makes messages of every type. All chance is `random`'s."""

    def __init__(self, random: Random, pool: Pool) -> None:
        self._random = random
        self.pool = pool

    def any(self, kinds: Sequence[type] = KINDS) -> Any:
        return self.make(self._pick(kinds))

    def make(self, kind: type) -> Any:
        return kind(*[self._field(name, make) for name, make in _plan(kind)])

    def _field(self, name: str, make: Callable[[Maker], Any]) -> Any:
        likely = self.pool.named.get(name)
        return self._pick(likely) if likely and self._random.random() < 0.8 else make(self)

    def _pick(self, things: Any) -> Any:
        return things[int(self._random.random() * len(things))]

    def number(self) -> int:
        chance = self._random.random()
        if chance < 0.7:
            return int(self._pick(self.pool.numbers))
        if chance < 0.9:
            return int(chance * 1_000) % 20
        return int(self._pick(_NUMBERS))

    def text(self) -> str:
        return str(self._pick(self.pool.texts))

    def body(self) -> bytes:
        return bytes(self._pick(self.pool.bodies))

    def flag(self) -> bool:
        return self._random.random() < 0.5

    def ballot(self) -> Ballot:
        if self._random.random() < 0.95:
            return self._pick(self.pool.ballots)  # type: ignore[no-any-return]
        return Ballot(self.number(), self.number())

    def position(self) -> Position:
        if self._random.random() < 0.95:
            return self._pick(self.pool.positions)  # type: ignore[no-any-return]
        return Position(self.number(), self.ballot(), self._random.randbytes(16))

    def entry(self) -> Entry:
        """An entry that follows some position by its hash."""
        return make_entry(
            self.position(),
            self.ballot(),
            self.number(),
            self._pick((0, 0, 1, 2, 2, 3, 255)),
            self._pick(self.pool.payloads),
        )

    def address(self) -> tuple[str, int]:
        hosts = ("10.0.0.1", "10.0.0.2", "10.0.9.9", "0.0.0.0", "255.255.255.255", "no.such.host")
        return self._pick(hosts), 1 + int(self._random.random() * 65_535)


def _entries(maker: Maker) -> tuple[Entry, ...]:
    """None, one, or a few that follow one another."""
    count = maker._pick((0, 0, 1, 1, 1, 2, 5))
    if not count:
        return ()
    entries = [maker.entry()]
    while len(entries) < count:
        last = entries[-1]
        payload = maker._pick(maker.pool.payloads)
        entries.append(make_entry(last.position, last.ballot, last.time_us, last.kind, payload))
    return tuple(entries)


@cache
def _plan(kind: type) -> tuple[tuple[str, Callable[[Maker], Any]], ...]:
    """How each field of `kind` is made."""
    return tuple((name, _way(hint)) for name, hint in get_type_hints(kind).items())


_WAYS: dict[Any, Callable[[Maker], Any]] = {
    int: Maker.number,
    str: Maker.text,
    bytes: Maker.body,
    bool: Maker.flag,
    Ballot: Maker.ballot,
    Position: Maker.position,
    Entry: Maker.entry,
    tuple[str, int]: Maker.address,
    tuple[Entry, ...]: _entries,
}


def _way(hint: Any) -> Callable[[Maker], Any]:
    if hint in _WAYS:
        return _WAYS[hint]
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not type(None))
        way = _way(inner)
        return lambda maker: way(maker) if maker.flag() else None
    if get_origin(hint) is tuple:
        way = _way(arguments[0])
        return lambda maker: tuple(way(maker) for _ in range(maker._pick((0, 1, 3, 3, 5))))
    return lambda maker: maker.make(hint)
