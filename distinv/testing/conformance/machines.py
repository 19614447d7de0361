"""A handful of machines in virtual time, under one seed: no sockets, no clock.

What is common to the scenes of the suites (`Assembly`, `Electorate`): a queue of what is to
happen, deadlines that are kept in the order of time, and a tale of it all for a failure's message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from distinv.entry import NodeId

_STEPS_MAX = 50_000
"""Of one run, which takes some hundreds: beyond that something circulates."""
_TALE_LINES = 16


class Machine(Protocol):
    """What a multicast and an election have in common."""

    def deadline(self) -> int | None: ...

    def on_deadline(self, now: int) -> Iterable[Any]: ...


MachineT = TypeVar("MachineT", bound=Machine)
ActionT = TypeVar("ActionT")


class Machines(ABC, Generic[MachineT, ActionT]):
    """Machines by the id of their server; whoever derives from this fills `machines`."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0
        self.machines: dict[NodeId, MachineT] = {}
        self.lines: list[str] = []
        self._order = 0
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []

    @abstractmethod
    def act(self, source: NodeId, actions: list[ActionT]) -> None:
        """Check what the machine of `source` returned from one call, and carry it out."""

    def alive(self) -> list[NodeId]:
        """Those whose deadlines are kept."""
        return list(self.machines)

    def call(self, node: int, ask: Callable[[MachineT], Iterable[ActionT]]) -> list[ActionT]:
        """Call one machine as a server does, and carry out what it returns."""
        returned = ask(self.machines[NodeId(node)])
        assert returned is not None, f"it returned None instead of no actions; {self.tale()}"
        actions = list(returned)
        self.act(NodeId(node), actions)
        return actions

    def at(self, time: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._waiting, (time, self._order, happen))

    def run(
        self, until: int, stop: Callable[[], bool] = lambda: False, *, late_us: int = 0
    ) -> bool:
        """Step what waits and deadlines, these `late_us` after their time, up to `until`.

        It ends as soon as `stop`, which is returned.
        """
        steps = 0
        while not (stopped := stop()) and (step := self._next(late_us)) and step[0] <= until:
            steps += 1
            assert steps <= _STEPS_MAX, (
                f"more than {_STEPS_MAX} messages and deadlines; {self.tale()}"
            )
            self.now = max(self.now, step[0])
            step[1]()
        if not stopped:
            self.now = until
        return stopped

    def resting(self) -> bool:
        """Nothing is to happen, and nobody alive has a deadline."""
        return self._next(0) is None

    def remind(self, node: NodeId) -> None:
        """A deadline has come. One that stays due would be called again and again."""
        self.call(node, lambda machine: machine.on_deadline(self.now))
        due = self.machines[node].deadline()
        assert due is None or due > self.now, (
            f"{node}'s deadline is {due} after on_deadline({self.now}): it is due for ever; "
            + self.tale()
        )

    def note(self, line: str) -> None:
        self.lines.append(f"  {self.now / 1000:9.3f} ms  {line}")

    def tale(self) -> str:
        """The end of the story, for a failure's message."""
        return "\n".join(["what happened:", *self.lines[-_TALE_LINES:]])

    def _next(self, late_us: int) -> tuple[int, Callable[[], None]] | None:
        """When the next thing happens, and what makes it happen."""
        best: tuple[int, Callable[[], None]] | None = None
        for node in self.alive():
            due = self.machines[node].deadline()
            assert due is None or isinstance(due, int), (
                f"a deadline is an int of microseconds or None, not {due!r}; {self.tale()}"
            )
            if due is not None and (best is None or due + late_us < best[0]):
                best = (due + late_us, partial(self.remind, node))
        if self._waiting and (best is None or self._waiting[0][0] <= best[0]):
            return self._waiting[0][0], self._take_waiting
        return best

    def _take_waiting(self) -> None:
        heappop(self._waiting)[2]()


def shown(body: bytes) -> str:
    return repr(body) if len(body) <= 32 else f"{body[:24]!r}… ({len(body)} bytes)"
