"""The extension point "observer": who wants to hear what happens?

Who calls: the runtime, once per turn in which something happened, on the event loop; the
classes of what can happen stand in `distinv.runtime.observers`. What may not happen: waiting,
since the server stands still meanwhile. An observer that raises is logged, and called no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import frozen


class Observer(Protocol):
    def on_events(self, events: Sequence[object]) -> None:
        """What happened in this turn, in order. An observer skips the classes it does not know."""
        ...


@frozen
class ObserverContext:
    """What an observer factory receives."""

    cluster_name: str
    server_name: str


class ObserverFactory(Protocol):
    def __call__(self, context: ObserverContext) -> Observer: ...
