"""An election for distinv: the server with the least to do should lead.

Who misses the leader asks every other voter how busy it is, waits for one answer time, and
nominates the least busy of those that answered; among equals the one with the highest id, so
that servers that ask at the same time nominate the same one.

How busy a server is, it knows without a clock and without the operating system: an election is
called at the time it asked for, or later when other work kept the event loop. The average delay
is the measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, TypeAlias

import msgspec

from distinv.election.api import (
    ElectionAction,
    ElectionContext,
    ElectionFactory,
    Nominate,
    SendElection,
)
from distinv.entry import Ballot, NodeId
from distinv.plugins.hookspecs import hookimpl

_SAMPLE_US = 500_000
"""How often the delay is measured: rarely enough to cost nothing."""
_SMOOTHING = 8
"""The average forgets an eighth with every measurement: it looks back about four seconds."""
_ROUNDS_MAX = 4
"""Fruitless rounds double the wait for a leader, up to sixteen answer times."""

_Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class HowBusy(msgspec.Struct, frozen=True, array_like=True, tag=1):
    number: _Number
    """The asker's question; echoed."""


class Busy(msgspec.Struct, frozen=True, array_like=True, tag=2):
    number: _Number
    load: Annotated[int, msgspec.Meta(ge=0, le=64)]


_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[HowBusy | Busy] = msgspec.msgpack.Decoder(HowBusy | Busy)


class LowestLoad:
    """One server's part. See `distinv.election.api` for who calls what, and when."""

    def __init__(self, context: ElectionContext) -> None:
        self.self_id = context.self_id
        self._timing = context.timing
        self._random = context.random
        self._voters: tuple[NodeId, ...] = ()
        self._suspected: NodeId | None = None
        self._number = context.random.getrandbits(32)
        self._rounds = 0
        self._loads: dict[NodeId, int] = {}
        """The answers to the question under way; empty when there is none."""
        self._delay_us = 0
        self._sample_at: int | None = None
        self._decide_at: int | None = None
        """When to count the answers, or, with none under way, to ask again."""

    @property
    def load(self) -> int:
        """0 below a millisecond of delay, and one more for each doubling: small ones are equal."""
        return (self._delay_us // 1_000).bit_length()

    def on_suspect(self, leader: NodeId | None, now: int) -> Iterable[ElectionAction]:
        self._suspected = leader
        return self._ask(now) if self._decide_at is None else ()

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Iterable[ElectionAction]:
        self._suspected = None
        self._rounds = 0
        self._loads = {}
        self._decide_at = None
        return ()

    def on_members(self, voters: Sequence[NodeId], now: int) -> Iterable[ElectionAction]:
        self._voters = tuple(voters)
        self._loads = {voter: load for voter, load in self._loads.items() if voter in voters}
        if self.self_id not in self._voters:
            self._loads = {}
            self._decide_at = self._sample_at = None
        elif self._sample_at is None:
            self._sample_at = now + _SAMPLE_US
        return ()

    def on_message(self, source: NodeId, body: bytes, now: int) -> Iterable[ElectionAction]:
        if source not in self._voters or self.self_id not in self._voters:
            return ()
        try:
            message = _decoder.decode(body)
        except msgspec.MsgspecError:
            return ()
        if isinstance(message, HowBusy):
            return (SendElection(source, _encode(Busy(message.number, self.load))),)
        if not self._loads or message.number != self._number:
            return ()
        self._loads[source] = message.load
        everybody = all(voter in self._loads for voter in self._others())
        return self._decide(now) if everybody else ()

    def deadline(self) -> int | None:
        if self._sample_at is None or self._decide_at is None:
            return self._sample_at
        return min(self._sample_at, self._decide_at)

    def on_deadline(self, now: int) -> Iterable[ElectionAction]:
        if self._sample_at is not None and now >= self._sample_at:
            self._delay_us += (now - self._sample_at - self._delay_us) // _SMOOTHING
            self._sample_at = now + _SAMPLE_US
        if self._decide_at is None or now < self._decide_at:
            return ()
        return self._decide(now) if self._loads else self._ask(now)

    def _others(self) -> list[NodeId]:
        """Whom to ask: all but this server and the leader that it misses."""
        return [voter for voter in self._voters if voter not in (self.self_id, self._suspected)]

    def _ask(self, now: int) -> list[ElectionAction]:
        if self.self_id not in self._voters:
            return []
        self._number += 1
        self._loads = {self.self_id: self.load}
        self._decide_at = now + self._timing.election_answer_us
        question = _encode(HowBusy(self._number))
        return [SendElection(voter, question) for voter in self._others()]

    def _decide(self, now: int) -> list[ElectionAction]:
        loads = self._loads
        best = min(loads, key=lambda voter: (loads[voter], -voter))
        self._loads = {}
        answer_us = self._timing.election_answer_us
        wait_us = (answer_us << min(self._rounds, _ROUNDS_MAX)) + self._random.randrange(answer_us)
        self._rounds += 1
        self._decide_at = now + wait_us
        return [Nominate(best)]


@hookimpl
def distinv_elections() -> Mapping[str, ElectionFactory]:
    return {"lowest-load": LowestLoad}
