"""A client's reads: in no order, and asked again whenever that may help."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from attrs import define

from distinv.client.backoff import Backoff
from distinv.client.calls import CallBook
from distinv.client.refusals import RETRY_AFTER
from distinv.config import Limits, Timing
from distinv.errors import DistinvError, InvalidRequest, Overloaded
from distinv.wire.messages import Answer, Query, QueryFailed

PATIENCE_DOUBLINGS = 8


@define(eq=False)
class Question:
    """One read. Its id is its number on the wire."""

    id: int
    linearizable: bool
    min_seq: int
    body: bytes
    deadline: int
    questions: Questions
    asked_at: int = 0
    silences: int = 0
    """Servers that lived and let its patience run out, since one last answered."""
    reason: str = ""
    """Why the last try failed."""

    def expire(self, now: int) -> None:
        self.questions.give_up(self)


class Questions:
    """Reads that wait to be sent, and reads the present server owes an answer to."""

    def __init__(
        self,
        *,
        book: CallBook,
        random: Random,
        timing: Timing,
        limits: Limits,
        unavailable: Callable[[str], DistinvError],
    ) -> None:
        self._book = book
        self._timing = timing
        self._limits = limits
        self._unavailable = unavailable
        self._backoff = Backoff(
            random, timing.client_backoff_floor_us, timing.client_backoff_ceiling_us
        )
        self._waiting: OrderedDict[int, Question] = OrderedDict()
        self._asked: OrderedDict[int, Question] = OrderedDict()
        self._impatient_at = 0
        """Not later than the first of `_asked` is overdue; put right when it is reached."""
        self._resume_at = 0
        self._paused = False

    def submit(self, body: bytes, linearizable: bool, min_seq: int, deadline: int) -> int:
        """Take a read in. Raises Overloaded."""
        if len(self._waiting) + len(self._asked) >= self._limits.pending_reads:
            raise Overloaded("This client has too many open reads.", retry_after=RETRY_AFTER)
        question = Question(self._book.new_id(), linearizable, min_seq, body, deadline, self)
        self._waiting[question.id] = question
        self._book.enter(question)
        return question.id

    def detach(self, question: Question) -> None:
        self._book.abandon(question.id)
        self._drop(question.id)

    def give_up(self, question: Question) -> None:
        """A read has no effect, so it is `Unavailable` however often it was sent."""
        self._book.fail(question.id, self._unavailable(question.reason))
        self._drop(question.id)

    def _drop(self, number: int) -> Question | None:
        return self._asked.pop(number, None) or self._waiting.pop(number, None)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._asked

    @property
    def under_way(self) -> bool:
        """The present server owes an answer."""
        return bool(self._asked)

    def next_query(self, now: int) -> Query | None:
        """The next read to send, as far as the window allows."""
        if not self._waiting or self._pausing(now):
            return None
        if len(self._asked) >= self._limits.session_window:
            return None
        _, question = self._waiting.popitem(last=False)
        question.asked_at = now
        overdue_at = self._overdue_at(question)
        if not self._asked or overdue_at < self._impatient_at:
            self._impatient_at = overdue_at
        self._asked[question.id] = question
        return Query(question.id, question.linearizable, question.min_seq, question.body)

    def answer(self, message: Answer) -> None:
        """An answer counts whoever gives it, also to a try that was given up."""
        if self._drop(message.number) is not None:
            self._backoff.reset()
            self._book.finish(message.number, message.result)

    def failed(self, message: QueryFailed, now: int) -> None:
        question = self._asked.get(message.number)
        if question is None:
            return
        question.reason = message.reason
        question.silences = 0
        if message.reason == "invalid_request":
            self._drop(question.id)
            self._book.fail(question.id, InvalidRequest(message.detail))
            return
        self._ask_again(question)
        if not self._paused:
            self._paused = True
            self._resume_at = now + self._backoff.pause_us()

    def rewind(self) -> None:
        """The server is another, or the link was reset: ask it all again, oldest first."""
        for question in reversed(list(self._asked.values())):
            self._ask_again(question)

    def resume(self) -> None:
        """There is a new leader: what waits for one need not wait longer."""
        self._paused = False

    def _pausing(self, now: int) -> bool:
        self._paused = self._paused and now < self._resume_at
        return self._paused

    def _ask_again(self, question: Question) -> None:
        del self._asked[question.id]
        self._waiting[question.id] = question
        self._waiting.move_to_end(question.id, last=False)

    def forgive(self, now: int) -> None:
        """This process stood still: a silence until now proves nothing."""
        for question in self._asked.values():
            question.asked_at = now

    def lose_patience(self, now: int) -> bool:
        """Whether an answer is overdue, so that another server is to be asked.

        What is overdue waits twice as long the next time; it does not hold back the others.
        """
        if not self._asked or now < self._impatient_at:
            return False
        overdue = [each for each in self._asked.values() if now >= self._overdue_at(each)]
        for question in overdue:
            question.silences += 1
        self._impatient_at = min(map(self._overdue_at, self._asked.values()))
        return bool(overdue)

    def _overdue_at(self, question: Question) -> int:
        doublings = min(question.silences, PATIENCE_DOUBLINGS)
        return question.asked_at + (self._timing.client_read_us << doublings)

    def deadline(self) -> int | None:
        """When there is something to send again after a pause, or an answer may be overdue."""
        impatient_at = self._impatient_at if self._asked else None
        if not self._paused or not self._waiting:
            return impatient_at
        return self._resume_at if impatient_at is None else min(self._resume_at, impatient_at)
