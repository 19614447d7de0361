"""A client's commands: one numbered stream, at most once each and in the order of issue.

Two rules carry the promise of exactly once:

1. *A number once sent is never used for another command.* A caller who leaves turns the number
   into a void, and the log decides which of the two came first.
2. *A copy counts as open until it is answered "not taken" by its own number.* Only a command
   without open copies is known not to have been applied.

The stream goes back to the first unanswered number when a copy is lost or not taken, and sends
all from there on again (go-back-N), each as a new copy.

Session states: none → opening (first command) → open → draining (the log expired it; every
number under way is still waited for) → none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from random import Random

from attrs import define

from distinv.client.backoff import Backoff
from distinv.client.calls import CallBook
from distinv.client.decisions import Decisions
from distinv.client.refusals import RETRY_AFTER
from distinv.config import Limits, Timing
from distinv.errors import (
    DistinvError,
    InvalidRequest,
    OutcomeUnknown,
    Overloaded,
    VersionMismatch,
)
from distinv.inventory.commands import session_key
from distinv.wire.messages import NotTaken, OpenSession, Reply, Request, SessionOpened

PATIENCE_DOUBLINGS = 3

_REFUSALS: dict[str, type[DistinvError]] = {
    "invalid_request": InvalidRequest,
    "version_mismatch": VersionMismatch,
}
"""Reasons that are final: the same command would not be taken a moment later."""


@define(eq=False)
class Command:
    """One ordered command on its way. An empty body is a void: the caller has gone."""

    id: int
    body: bytes
    deadline: int
    key: str | None
    """The caller's own idempotency key."""
    stream: CommandStream
    number: int = 0
    """0 until a copy is sent."""
    copies: int = 0
    open_copies: int = 0
    """Bit n: copy n was sent and has not been answered "not taken"."""
    attempts: int = 0
    """Copies that met with silence."""
    reason: str = ""
    """Why the last copy was not taken."""
    bytes_under_way: int = 0

    def expire(self, now: int) -> None:
        self.stream.give_up(self)


class CommandStream:
    """See the module. The owner sends what `next_open` and `next_request` give, in order."""

    def __init__(
        self,
        *,
        book: CallBook,
        random: Random,
        timing: Timing,
        limits: Limits,
        nonces: Random,
        name: str,
        unavailable: Callable[[str], DistinvError],
    ) -> None:
        self.session = 0
        """The id of the open session, 0 while there is none."""
        self._book = book
        self._nonces = nonces
        self._timing = timing
        self._limits = limits
        self._name = name
        self._unavailable = unavailable
        self._backoff = Backoff(
            random, timing.client_backoff_floor_us, timing.client_backoff_ceiling_us
        )
        self._decisions = Decisions(book, limits)
        self._waiting: OrderedDict[int, Command] = OrderedDict()
        self._window: dict[int, Command] = {}
        self._lowest = 1
        self._next = 1
        self._cursor = 1
        """Numbers below it are under way to the present server."""
        self._bytes_held = 0
        self._bytes_under_way = 0
        self._draining = False
        self._again: list[Command] = []
        """From the session that drains: certainly not applied, for the next session."""
        self._nonce = self._new_nonce()
        self._open_copies = 0
        self._open_under_way = False
        self._reason = ""
        self._resume_at = 0
        self._paused = False
        self._quiet_since = 0
        self._silences = 0

    # --- callers ------------------------------------------------------------------------------

    def submit(self, body: bytes, deadline: int, key: str | None) -> int:
        """Take a command in. Raises InvalidRequest (empty, too large) and Overloaded."""
        limits = self._limits
        if not 0 < len(body) <= limits.client_window_bytes:
            raise InvalidRequest(
                f"A command has {len(body)} bytes; "
                f"between 1 and {limits.client_window_bytes} are allowed."
            )
        if (
            len(self._waiting) + len(self._window) >= limits.pending_commands
            or self._bytes_held + len(body) > limits.client_queue_bytes
        ):
            raise Overloaded(
                "This client has too many unanswered commands.", retry_after=RETRY_AFTER
            )
        command = Command(self._book.new_id(), body, deadline, key, self)
        self._bytes_held += len(body)
        self._waiting[command.id] = command
        self._book.enter(command)
        return command.id

    def detach(self, command: Command) -> None:
        """The caller has gone: no answer is owed, but a number already sent stays in use."""
        self._book.abandon(command.id)
        self._void(command)

    def give_up(self, command: Command) -> None:
        """End a call that got no answer by the outcome rule, and void its number."""
        if command.number and command.open_copies:
            self._fail_unknown(command)
        else:
            self._book.fail(command.id, self._unavailable(command.reason or self._reason))
        self._void(command)

    def watch(self, session: int, number: int, deadline: int) -> int | None:
        """A call that ends with the outcome of a number of this client.

        None when this client neither remembers it nor will learn it: the cluster has to be asked.
        """
        undecided = session == self.session and number in self._window
        return self._decisions.watch(session, number, deadline, undecided)

    # --- what to send -------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing to send, nothing awaited."""
        return not self._waiting and not self._window

    @property
    def under_way(self) -> bool:
        """The present server owes an answer."""
        return self._open_under_way or (self._cursor > self._lowest and bool(self._window))

    def next_open(self, now: int) -> OpenSession | None:
        """The session to open, when commands wait for one."""
        if self.session or self._open_under_way or not self._waiting or self._pausing(now):
            return None
        self._open_under_way = True
        self._open_copies += 1
        self._quiet_since = now
        return OpenSession(self._nonce, self._name, self._open_copies)

    def next_request(self, now: int) -> Request | None:
        """The next copy to send, as far as the window allows."""
        if not self.session or self._draining or self._pausing(now):
            return None
        command = self._next_command()
        if command is None:
            return None
        if not self.under_way:
            self._quiet_since = now
        if not command.number:
            del self._waiting[command.id]
            command.number = self._next
            self._next += 1
            self._window[command.number] = command
        self._cursor = command.number + 1
        command.copies += 1
        if command.body:
            command.open_copies |= 1 << command.copies
        command.bytes_under_way = len(command.body)
        self._bytes_under_way += command.bytes_under_way
        return Request(self.session, command.number, command.copies, self._lowest, command.body)

    def _next_command(self) -> Command | None:
        window = self._window
        while self._cursor < self._next and self._cursor not in window:
            self._cursor += 1
        if self._cursor < self._next:
            command = window[self._cursor]
        elif self._waiting and self._next - self._lowest < self._limits.session_window:
            command = next(iter(self._waiting.values()))
        else:
            return None
        under_way = self._bytes_under_way
        if under_way and under_way + len(command.body) > self._limits.client_window_bytes:
            return None
        return command

    # --- answers ------------------------------------------------------------------------------

    def opened(self, message: SessionOpened, now: int) -> None:
        if self.session or message.nonce != self._nonce or message.session <= 0:
            return
        self.session = message.session
        self._open_under_way = False
        self._note_progress(now)

    def reply(self, message: Reply, now: int) -> None:
        """The log has decided this number."""
        if message.session != self.session:
            return
        command = self._window.get(message.number)
        if command is None:
            return
        self._note_progress(now)
        self._leave_window(command)
        self._decisions.decide(self.session, command, message.result)
        self._book.finish(command.id, message.result, message.session, message.number)
        self._drain()

    def not_taken(self, message: NotTaken, now: int) -> None:
        """One copy was not taken, by its own number: go back, and wait a little."""
        if message.session == 0:
            self._open_not_taken(message, now)
            return
        command = self._window.get(message.number)
        if message.session != self.session or command is None:
            return
        if not 1 <= message.copy <= command.copies:
            return
        command.open_copies &= ~(1 << message.copy)
        under_way = command.number < self._cursor
        latest = message.copy == command.copies
        if message.reason == "session_expired":
            self._draining = True
            if latest and under_way:
                self._leave_expired(command)
        elif message.reason != "gap":
            command.reason = self._reason = message.reason
        if latest and under_way and message.reason != "session_expired":
            self._try_again(command, message, now)
        self._drain()

    def _try_again(self, command: Command, message: NotTaken, now: int) -> None:
        self._quiet_since = now
        self._silences = 0
        refusal = _REFUSALS.get(message.reason)
        if refusal is not None and command.body:
            self._refuse(command, refusal(message.detail))
            self._go_back(command.number)
            return
        self._go_back(self._lowest if message.reason == "gap" else command.number)
        self._pause(now)

    def _open_not_taken(self, message: NotTaken, now: int) -> None:
        if message.number != self._nonce or message.copy != self._open_copies:
            return
        self._open_under_way = False
        self._reason = message.reason
        self._pause(now)

    def _refuse(self, command: Command, error: DistinvError) -> None:
        """A server cannot read the command, so none of this version ever applies it; or not all
        the servers can, so none of them takes it."""
        if command.open_copies:
            self.give_up(command)
            return
        self._book.fail(command.id, error)
        self._void(command)

    def _note_progress(self, now: int) -> None:
        self._quiet_since = now
        self._silences = 0
        self._reason = ""
        self._backoff.reset()

    # --- no answers ---------------------------------------------------------------------------

    def rewind(self, now: int, *, pause: bool = False) -> None:
        """What was under way is lost, or the server is another: send it all again.

        Not before the present pause is over; the one who knows of a better server ends it.
        """
        pause = pause and self.under_way
        self._open_under_way = False
        self._go_back(self._lowest)
        if pause:
            self._pause(now)
        self._drain()

    def silent(self, now: int) -> None:
        """The server did not answer: that was an attempt of everything under way."""
        self._silences += 1
        for number in range(self._lowest, self._cursor):
            command = self._window.get(number)
            if command is None or not command.body:
                continue
            command.attempts += 1
            if command.attempts >= self._limits.client_attempts:
                self.give_up(command)
        self.rewind(now)

    def resume(self) -> None:
        """There is a new leader: what waits for one need not wait longer."""
        self._paused = False

    def forgive(self, now: int) -> None:
        """This process stood still: a silence until now proves nothing."""
        self._quiet_since = now

    def impatient_at(self) -> int | None:
        """When the lack of any answer from a living server counts as silence."""
        if not self.under_way:
            return None
        doublings = min(self._silences, PATIENCE_DOUBLINGS)
        return self._quiet_since + (self._timing.client_answer_us << doublings)

    def deadline(self) -> int | None:
        """When there is something to send again after a pause, or the answer is overdue."""
        impatient_at = self.impatient_at() if self._window or self._open_under_way else None
        if not self._paused or self.idle or self._draining:
            return impatient_at
        return self._resume_at if impatient_at is None else min(self._resume_at, impatient_at)

    def _pause(self, now: int) -> None:
        self._paused = True
        self._resume_at = now + self._backoff.pause_us()

    def _pausing(self, now: int) -> bool:
        self._paused = self._paused and now < self._resume_at
        return self._paused

    def _go_back(self, number: int) -> None:
        for later in range(number, self._cursor):
            command = self._window.get(later)
            if command is not None:
                self._bytes_under_way -= command.bytes_under_way
                command.bytes_under_way = 0
        self._cursor = min(self._cursor, number)

    # --- leaving ------------------------------------------------------------------------------

    def _void(self, command: Command) -> None:
        self._bytes_held -= len(command.body)
        command.body = b""
        if not command.number:
            self._waiting.pop(command.id, None)

    def _fail_unknown(self, command: Command) -> None:
        key = command.key or session_key(self.session, command.number)
        self._book.fail(command.id, OutcomeUnknown(idempotency_key=key))

    def _leave_window(self, command: Command) -> None:
        del self._window[command.number]
        self._bytes_held -= len(command.body)
        self._bytes_under_way -= command.bytes_under_way
        command.bytes_under_way = 0
        while self._lowest < self._next and self._lowest not in self._window:
            self._lowest += 1

    # --- an expired session -------------------------------------------------------------------

    def _drain(self) -> None:
        """Once the session has expired, what is not under way cannot be decided any more."""
        if not self._draining:
            return
        for number in range(self._cursor, self._next):
            if (command := self._window.get(number)) is not None:
                self._leave_expired(command)
        if not self._window:
            self._end_draining()

    def _leave_expired(self, command: Command) -> None:
        self._leave_window(command)
        self._decisions.lose(self.session, command)
        if not command.body:
            return
        if command.open_copies:
            self._fail_unknown(command)
            return
        self._bytes_held += len(command.body)
        command.number = command.copies = 0
        self._again.append(command)

    def _end_draining(self) -> None:
        for command in sorted(self._again, key=lambda command: command.id, reverse=True):
            if command.id in self._book:
                self._waiting[command.id] = command
                self._waiting.move_to_end(command.id, last=False)
        self._again = []
        self._draining = False
        self.session = 0
        self._lowest = self._next = self._cursor = 1
        self._nonce = self._new_nonce()
        self._open_copies = 0

    def _new_nonce(self) -> int:
        return self._nonces.getrandbits(63) | 1
