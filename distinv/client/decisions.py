"""What became of numbers whose caller no longer waits."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import define

from distinv.client.calls import CallBook
from distinv.config import Limits
from distinv.errors import OutcomeUnknown
from distinv.inventory.commands import session_key

if TYPE_CHECKING:
    from distinv.client.stream import Command


@define(eq=False)
class Watch:
    """Somebody asks what becomes of a number that is still undecided."""

    id: int
    deadline: int
    session: int
    number: int
    book: CallBook

    def expire(self, now: int) -> None:
        key = session_key(self.session, self.number)
        self.book.fail(self.id, OutcomeUnknown(idempotency_key=key))


class Decisions:
    """Outcomes nobody has taken yet, oldest forgotten first, and those who ask for them.

    The cluster drops a result as soon as the number is answered, so a client that let its
    caller go has to remember the outcome itself.
    """

    def __init__(self, book: CallBook, limits: Limits) -> None:
        self._book = book
        self._count_max = limits.session_window
        self._bytes_max = limits.session_results_bytes
        self._bytes = 0
        self._results: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._watches: dict[tuple[int, int], list[Watch]] = {}

    def watch(self, session: int, number: int, deadline: int, undecided: bool) -> int | None:
        """A call that ends with the outcome; None when it is not known and will not be."""
        result = self._results.get((session, number))
        if result is None and not undecided:
            return None
        watch = Watch(self._book.new_id(), deadline, session, number, self._book)
        self._book.enter(watch)
        if result is None:
            asked = self._watches.get((session, number), [])
            still = [earlier for earlier in asked if earlier.id in self._book]
            self._watches[session, number] = [*still, watch]
        else:
            self._book.finish(watch.id, result, session, number)
        return watch.id

    def decide(self, session: int, command: Command, result: bytes) -> None:
        """The log has decided the command's number."""
        if self._watches:
            for watch in self._watches.pop((session, command.number), ()):
                self._book.finish(watch.id, result, session, command.number)
        if command.id in self._book:
            return
        self._results[session, command.number] = result
        self._bytes += len(result)
        while len(self._results) > self._count_max or self._bytes > self._bytes_max:
            _, forgotten = self._results.popitem(last=False)
            self._bytes -= len(forgotten)

    def lose(self, session: int, command: Command) -> None:
        """The session expired before an answer came: nobody will ever know."""
        for watch in self._watches.pop((session, command.number), ()):
            watch.expire(0)
