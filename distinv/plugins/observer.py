"""The extension point "observer": who wants to hear what happens?

Who calls: the runtime, once per turn in which something happened, on the event loop. What may
not happen: waiting (the server stands still meanwhile), and keeping more than is needed. What
an observer raises is logged and changes nothing.
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
