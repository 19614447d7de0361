"""A client's reads: in no order, and asked again whenever that may help.

Reads of what one server has go a lane of their own: they are answered where there is no leader,
and wait for nothing that is refused there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from attrs import define, field

from distinv.client.backoff import Backoff
from distinv.client.calls import CallBook
from distinv.client.refusals import RETRY_AFTER
from distinv.config import Limits, Timing
from distinv.errors import DistinvError, InvalidRequest, NotFound, Overloaded
from distinv.wire.messages import Answer, Order, Query, QueryFailed

PATIENCE_DOUBLINGS = 8

_FINAL = {"invalid_request": InvalidRequest, "unknown_server": NotFound}
"""What the answer stays, however often it is asked."""

_NOT_TAKEN_UP = ("not_leader", "overloaded")


@define(eq=False)
class Question:
    """One read. Its id is its number on the wire."""

    id: int
    linearizable: bool
    min_seq: int
    body: bytes
    deadline: int
    questions: Questions
    order: tuple[str, int, bool] | None = None
    """What is wished of the cluster itself, and of which server, instead of a read."""
    begun: bool = False
    """A leader may have taken the order up, in a try whose answer is lost or was "later"."""
    asked_at: int = 0
    silences: int = 0
    """Servers that lived and let its patience run out, since one last answered."""
    reason: str = ""
    """Why the last try failed."""

    @property
    def lets_go(self) -> bool:
        """It is fulfilled when the server is not there any more."""
        return self.order is not None and self.order[0] in ("remove", "leave")

    def expire(self, now: int) -> None:
        self.questions.give_up(self)


@define(eq=False)
class _Lane:
    """Reads that wait to be sent, and those the present server owes an answer to."""

    backoff: Backoff
    waiting: OrderedDict[int, Question] = field(factory=OrderedDict)
    asked: OrderedDict[int, Question] = field(factory=OrderedDict)
    resume_at: int = 0
    paused: bool = False

    def drop(self, number: int) -> Question | None:
        return self.asked.pop(number, None) or self.waiting.pop(number, None)

    def pausing(self, now: int) -> bool:
        self.paused = self.paused and now < self.resume_at
        return self.paused

    def pause(self, now: int) -> None:
        if not self.paused:
            self.paused = True
            self.resume_at = now + self.backoff.pause_us()

    def ask_again(self, question: Question) -> None:
        del self.asked[question.id]
        self.waiting[question.id] = question
        self.waiting.move_to_end(question.id, last=False)


class Questions:
    """All reads of one client."""

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
        floor_us, ceiling_us = timing.client_backoff_floor_us, timing.client_backoff_ceiling_us
        self._local = _Lane(Backoff(random, floor_us, ceiling_us))
        self._strict = _Lane(Backoff(random, floor_us, ceiling_us))
        """What needs a leader: linearizable reads, and orders."""
        self._lanes = (self._local, self._strict)
        self._impatient_at = 0
        """Not later than the first that was asked is overdue; put right when it is reached."""

    def submit(
        self,
        body: bytes,
        linearizable: bool,
        min_seq: int,
        deadline: int,
        order: tuple[str, int, bool] | None = None,
    ) -> int:
        """Take a read in, or an order. Raises Overloaded."""
        if sum(len(lane.waiting) + len(lane.asked) for lane in self._lanes) >= (
            self._limits.pending_reads
        ):
            raise Overloaded("This client has too many open reads.", retry_after=RETRY_AFTER)
        question = Question(self._book.new_id(), linearizable, min_seq, body, deadline, self, order)
        self._lane_of(question).waiting[question.id] = question
        self._book.enter(question)
        return question.id

    def _lane_of(self, question: Question) -> _Lane:
        return self._strict if question.linearizable else self._local

    def detach(self, question: Question) -> None:
        self._book.abandon(question.id)
        self._lane_of(question).drop(question.id)

    def give_up(self, question: Question) -> None:
        """A read has no effect, so it is `Unavailable` however often it was sent."""
        self._book.fail(question.id, self._unavailable(question.reason))
        self._lane_of(question).drop(question.id)

    @property
    def under_way(self) -> bool:
        """The present server owes an answer."""
        return bool(self._local.asked or self._strict.asked)

    def next_query(self, now: int) -> Query | Order | None:
        """The next read to send, as far as the window of its lane allows."""
        for lane in self._lanes:
            window = len(lane.asked) < self._limits.session_window
            if lane.waiting and window and not lane.pausing(now):
                return self._take(lane, now)
        return None

    def _take(self, lane: _Lane, now: int) -> Query | Order:
        _, question = lane.waiting.popitem(last=False)
        question.asked_at = now
        overdue_at = self._overdue_at(question)
        if not self.under_way or overdue_at < self._impatient_at:
            self._impatient_at = overdue_at
        lane.asked[question.id] = question
        if question.order is not None:
            return Order(question.id, *question.order)
        return Query(question.id, question.linearizable, question.min_seq, question.body)

    def answer(self, message: Answer) -> None:
        """An answer counts whoever gives it, also to a try that was given up."""
        for lane in self._lanes:
            if lane.drop(message.number) is not None:
                lane.backoff.reset()
                self._book.finish(message.number, message.result)
                return

    def failed(self, message: QueryFailed, now: int) -> None:
        for lane in self._lanes:
            question = lane.asked.get(message.number)
            if question is not None:
                self._fail(lane, question, message, now)
                return

    def _fail(self, lane: _Lane, question: Question, message: QueryFailed, now: int) -> None:
        question.reason = message.reason
        question.silences = 0
        if message.reason == "unknown_server" and question.lets_go and question.begun:
            lane.drop(question.id)
            self._book.finish(question.id, b"")  # it is gone, as was wished
            return
        final = _FINAL.get(message.reason)
        if final is not None:
            lane.drop(question.id)
            self._book.fail(question.id, final(message.detail))
            return
        question.begun |= message.reason not in _NOT_TAKEN_UP
        lane.ask_again(question)
        lane.pause(now)

    def rewind(self) -> None:
        """The server is another, or the link was reset: ask it all again, oldest first."""
        for lane in self._lanes:
            for question in reversed(list(lane.asked.values())):
                question.begun = True
                lane.ask_again(question)

    def resume(self) -> None:
        """There is a new leader: what waits for one need not wait longer."""
        for lane in self._lanes:
            lane.paused = False

    def forgive(self, now: int) -> None:
        """This process stood still: a silence until now proves nothing."""
        for question in self._asked():
            question.asked_at = now

    def lose_patience(self, now: int) -> bool:
        """Whether an answer is overdue, so that another server is to be asked.

        What is overdue waits twice as long the next time; it does not hold back the others.
        """
        if not self.under_way or now < self._impatient_at:
            return False
        asked = self._asked()
        overdue = [each for each in asked if now >= self._overdue_at(each)]
        for question in overdue:
            question.silences += 1
        self._impatient_at = min(map(self._overdue_at, asked))
        return bool(overdue)

    def _asked(self) -> list[Question]:
        return [*self._local.asked.values(), *self._strict.asked.values()]

    def _overdue_at(self, question: Question) -> int:
        doublings = min(question.silences, PATIENCE_DOUBLINGS)
        return question.asked_at + (self._timing.client_read_us << doublings)

    def deadline(self) -> int | None:
        """When there is something to send again after a pause, or an answer may be overdue."""
        first = self._impatient_at if self.under_way else None
        for lane in self._lanes:
            if lane.paused and lane.waiting:
                first = lane.resume_at if first is None else min(first, lane.resume_at)
        return first
