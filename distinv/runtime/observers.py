"""Who hears what happens in a server: the log of the program, and the observers plugged in.

All of them are resolved once, at the start, and called once per turn in which something
happened, with the batch of what happened: `Tell` (a line for people), `LeaderChanged`, and,
when there are observers, `Progress`. An observer that raises is logged, and heard no more of.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from attrs import frozen

from distinv.core.events import LeaderChanged, Tell
from distinv.errors import PluginError
from distinv.plugins.observer import Observer, ObserverContext, ObserverFactory

LOGGER = logging.getLogger("distinv")

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


@frozen
class Progress:
    """How far this server has come, as log indexes and as the seq of the inventory."""

    commit: int
    applied: int
    seq: int


class Audience:
    """Everybody who listens to one server."""

    def __init__(
        self, factories: Iterable[tuple[str, ObserverFactory]], cluster_name: str, server_name: str
    ) -> None:
        context = ObserverContext(cluster_name, server_name)
        self._server_name = server_name
        self._observers: list[tuple[str, Observer]] = []
        for name, factory in factories:
            try:
                self._observers.append((name, factory(context)))
            except Exception as error:
                raise PluginError(f"the observer {name} failed at the start: {error!r}") from error

    @property
    def attentive(self) -> bool:
        """Somebody besides the log listens."""
        return bool(self._observers)

    def say(self, text: str, level: str = "info") -> None:
        """One line that the runtime itself has to say."""
        self.tell((Tell(level, text),))

    def tell(self, events: Sequence[object]) -> None:
        """What happened in one turn, in order."""
        for event in events:
            if isinstance(event, Tell):
                LOGGER.log(_LEVELS[event.level], "%s: %s", self._server_name, event.text)
        for name, observer in tuple(self._observers):
            try:
                observer.on_events(events)
            except Exception as error:
                self._observers.remove((name, observer))
                LOGGER.error(
                    "%s: the observer %s failed and is asked nothing more: %r",
                    self._server_name,
                    name,
                    error,
                )


__all__ = ["LOGGER", "Audience", "LeaderChanged", "Progress", "Tell"]
