"""The calls a client has not finished: their ids, their deadlines, and how they ended."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol, TypeAlias

from distinv.errors import DistinvError
from distinv.wire.messages import StatusReply

Value: TypeAlias = bytes | tuple[StatusReply, ...]
"""An encoded outcome or answer; or, for a survey, what each server said of itself."""

COMPACT_AT = 1_024
"""Deadlines of finished calls that may lie in the heap besides one per open call."""


class Completion(NamedTuple):
    """How a call ended: with a value or with an error, never both."""

    call: int
    value: Value | None
    error: DistinvError | None
    session: int = 0
    number: int = 0
    """Of a command that was answered: its place in the client's stream."""


class OpenCall(Protocol):
    """What a call book keeps: somebody has to end it when its time is up."""

    id: int
    deadline: int

    def expire(self, now: int) -> None: ...


class CallBook:
    """Every open call, and each one's single completion."""

    __slots__ = ("_completions", "_deadlines", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, OpenCall] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._completions: list[Completion] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, call: int) -> bool:
        return call in self._open

    def new_id(self) -> int:
        self._next += 1
        return self._next - 1

    def enter(self, call: OpenCall) -> None:
        self._open[call.id] = call
        heappush(self._deadlines, (call.deadline, call.id))
        if len(self._deadlines) > 2 * len(self._open) + COMPACT_AT:
            self._deadlines = [(item.deadline, item.id) for item in self._open.values()]
            heapify(self._deadlines)

    def get(self, call: int) -> OpenCall | None:
        return self._open.get(call)

    def finish(self, call: int, value: Value, session: int = 0, number: int = 0) -> None:
        """End a call with an answer. A call that has ended already stays as it ended."""
        if self._open.pop(call, None) is not None:
            self._completions.append(Completion(call, value, None, session, number))

    def fail(self, call: int, error: DistinvError) -> None:
        if self._open.pop(call, None) is not None:
            self._completions.append(Completion(call, None, error))

    def abandon(self, call: int) -> OpenCall | None:
        """Its caller has gone away: there is no completion."""
        return self._open.pop(call, None)

    def everything(self) -> list[OpenCall]:
        """The open calls, oldest first."""
        return list(self._open.values())

    def expire(self, now: int) -> None:
        """Let every call whose time is up end itself."""
        while (first := self.first_deadline()) is not None and first <= now:
            call = self._open[heappop(self._deadlines)[1]]
            call.expire(now)

    def first_deadline(self) -> int | None:
        deadlines, still_open = self._deadlines, self._open
        while deadlines and deadlines[0][1] not in still_open:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def take(self) -> list[Completion]:
        """What ended since the last time, in the order it ended."""
        ended, self._completions = self._completions, []
        return ended
