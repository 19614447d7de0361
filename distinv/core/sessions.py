"""Sessions: every command takes effect at most once, and one client's in the order it sent them.

Replicated state, changed at apply alone: the same log gives the same table everywhere (the
client sessions of Ongaro's thesis, section 6.3). A command is taken only right after the one
before it, so a second copy in the log is recognised by its number, and a lost one stops those
behind it. Results are kept for the numbers a client may still ask about.

Time is the log's. Results are opaque bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from enum import Enum

import msgspec
from attrs import define, field

from distinv.config import Limits


class Admission(Enum):
    """What is to be done with a command that stands in the log."""

    TAKE = "take"
    """It is the next one: apply it, then `record` its result."""
    DUPLICATE = "duplicate"
    """Its number was decided before; the result may have been dropped since."""
    GAP = "gap"
    """The number before it was not applied yet: no effect, a later copy may be taken."""
    EXPIRED = "expired"
    """No such session, or it is closed: no effect, for good."""


@define
class Session:
    """One client's place in its stream of commands."""

    id: int
    nonce: int
    name: str
    used: int
    """Stamp of the last log command that touched it; the order of eviction."""
    used_us: int
    last: int = 0
    """The last number decided; numbers are decided without gaps."""
    closed: bool = False
    """No number after `last` will ever be decided."""
    results: dict[int, bytes] = field(factory=dict)
    """In ascending order of numbers."""
    results_bytes: int = 0


class SessionRow(msgspec.Struct, frozen=True, array_like=True):
    """A session as it is kept on disk and in snapshots."""

    nonce: int
    name: str
    used: int
    used_us: int
    last: int
    closed: bool
    results: tuple[tuple[int, bytes], ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SessionRow)


def encode_session(session: Session) -> bytes:
    return _encoder.encode(
        SessionRow(
            session.nonce,
            session.name,
            session.used,
            session.used_us,
            session.last,
            session.closed,
            tuple(session.results.items()),
        )
    )


def decode_session(session: int, data: bytes) -> Session:
    """Decode what `encode_session` made. Raises msgspec.DecodeError."""
    row = _decoder.decode(data)
    size = sum(len(result) for _, result in row.results)
    return Session(
        session,
        row.nonce,
        row.name,
        row.used,
        row.used_us,
        row.last,
        row.closed,
        dict(row.results),
        size,
    )


class SessionTable:
    """All sessions, least recently used first.

    `stamp` is the place of the log command, `batch.session_id(entry index, offset)`.
    """

    __slots__ = ("_changed", "_limits", "_nonces", "_sessions")

    def __init__(self, limits: Limits, sessions: Iterable[Session] = ()) -> None:
        self._limits = limits
        ordered = sorted(sessions, key=lambda session: session.used)
        self._sessions = OrderedDict((session.id, session) for session in ordered)
        self._nonces = {session.nonce: session.id for session in ordered if not session.closed}
        self._changed: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session: int) -> Session | None:
        return self._sessions.get(session)

    def of_nonce(self, nonce: int) -> int | None:
        """The open session that was opened with this nonce."""
        return self._nonces.get(nonce)

    def open(self, nonce: int, name: str, stamp: int, now_us: int) -> int:
        """Open a session, with `stamp` for its id; the same nonce gets the session it has."""
        known = self._nonces.get(nonce)
        if known is not None:
            self._touch(self._sessions[known], stamp, now_us)
            return known
        while len(self._sessions) >= self._limits.sessions_max:
            self._remove(next(iter(self._sessions)))
        self._sessions[stamp] = Session(stamp, nonce, name, stamp, now_us)
        self._nonces[nonce] = stamp
        self._changed[stamp] = None
        return stamp

    def admit(self, session: int, number: int, lowest: int, stamp: int, now_us: int) -> Admission:
        """Decide about command `number`, and drop the results below `lowest`."""
        state = self._sessions.get(session)
        if state is None:
            return Admission.EXPIRED
        if not state.closed:
            self._touch(state, stamp, now_us)
            self._drop_below(state, lowest)
        if number <= state.last:
            return Admission.DUPLICATE
        if state.closed:
            return Admission.EXPIRED
        return Admission.TAKE if number == state.last + 1 else Admission.GAP

    def has_room(self, session: int, size: int) -> bool:
        """Whether a result of so many bytes can be kept; a shorter form is recorded else."""
        taken = self._sessions[session].results_bytes
        return taken + size <= self._limits.session_results_bytes

    def record(self, session: int, result: bytes) -> None:
        """The result of the number just taken."""
        state = self._sessions[session]
        state.last += 1
        state.results[state.last] = result
        state.results_bytes += len(result)
        if len(state.results) > self._limits.session_window:
            self._drop_below(state, state.last - self._limits.session_window + 1)

    def result(self, session: int, number: int) -> bytes | None:
        """The recorded result; None when there is none, or not any more."""
        state = self._sessions.get(session)
        return None if state is None else state.results.get(number)

    def close(self, session: int) -> None:
        """Decide that no further number takes effect; of an unknown session none does anyway."""
        state = self._sessions.get(session)
        if state is not None and not state.closed:
            state.closed = True
            del self._nonces[state.nonce]
            self._changed[session] = None

    def start_clock(self, now_us: int) -> None:
        """The log bears its first time: until now nobody's clock was trusted, and time was 0.

        What happened before happened just now, not in 1970: the step must not expire it.
        """
        for state in self._sessions.values():
            state.used_us = now_us
            self._changed[state.id] = None

    def expire(self, now_us: int) -> None:
        """Forget the sessions that were not used for `Limits.session_kept_us`."""
        limit = now_us - self._limits.session_kept_us
        sessions = self._sessions
        while sessions:
            oldest = next(iter(sessions.values()))
            if oldest.used_us > limit:
                return
            self._remove(oldest.id)

    def take_changed(self) -> list[tuple[int, Session | None]]:
        """What changed since the last call, in order of first change; None: it is gone."""
        changed, self._changed = self._changed, {}
        return [(session, self._sessions.get(session)) for session in changed]

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._sessions) <= self._limits.sessions_max
        used = [session.used for session in self._sessions.values()]
        assert used == sorted(used)
        assert len(self._nonces) == sum(not item.closed for item in self._sessions.values())
        for session in self._sessions.values():
            numbers = list(session.results)
            assert numbers == sorted(numbers)
            assert len(numbers) <= self._limits.session_window
            assert not numbers or numbers[-1] <= session.last
            assert session.results_bytes == sum(map(len, session.results.values()))
            assert session.closed or self._nonces[session.nonce] == session.id

    def _touch(self, state: Session, stamp: int, now_us: int) -> None:
        state.used = stamp
        state.used_us = now_us
        self._sessions.move_to_end(state.id)
        self._changed[state.id] = None

    def _drop_below(self, state: Session, lowest: int) -> None:
        results = state.results
        while results:
            number = next(iter(results))
            if number >= lowest:
                return
            state.results_bytes -= len(results.pop(number))

    def _remove(self, session: int) -> None:
        state = self._sessions.pop(session)
        if not state.closed:
            del self._nonces[state.nonce]
        self._changed[session] = None
