"""Closing sessions of others through the log, so that their undecided numbers are decided."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from distinv.client.calls import CallBook
from distinv.errors import DistinvError
from distinv.wire.messages import EndSession, SessionEnded


@define(eq=False)
class Ending:
    """One session to close. Closing is idempotent, so it is asked for until it is confirmed."""

    id: int
    deadline: int
    session: int
    endings: Endings

    def expire(self, now: int) -> None:
        self.endings.give_up(self)


class Endings:
    """The closings that are asked for and not confirmed yet."""

    def __init__(
        self, *, book: CallBook, retry_us: int, unavailable: Callable[[str], DistinvError]
    ) -> None:
        self._book = book
        self._retry_us = retry_us
        self._unavailable = unavailable
        self._open: dict[int, Ending] = {}
        self._ask_at = 0

    def submit(self, session: int, now: int, deadline: int) -> int:
        ending = Ending(self._book.new_id(), deadline, session, self)
        self._open[ending.id] = ending
        self._book.enter(ending)
        self._ask_at = now
        return ending.id

    def detach(self, ending: Ending) -> None:
        self._book.abandon(ending.id)
        self._open.pop(ending.id, None)

    def give_up(self, ending: Ending) -> None:
        self._open.pop(ending.id, None)
        self._book.fail(ending.id, self._unavailable(""))

    @property
    def under_way(self) -> bool:
        return bool(self._open)

    def questions(self, now: int) -> list[EndSession]:
        """What to ask of the home now."""
        if not self._open or now < self._ask_at:
            return []
        self._ask_at = now + self._retry_us
        return [EndSession(ending.session) for ending in self._open.values()]

    def ended(self, message: SessionEnded) -> None:
        for ending in list(self._open.values()):
            if ending.session == message.session:
                del self._open[ending.id]
                self._book.finish(ending.id, b"")

    def rewind(self, now: int) -> None:
        """The home is another: ask it."""
        self._ask_at = now

    def deadline(self) -> int | None:
        return self._ask_at if self._open else None
