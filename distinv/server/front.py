"""Where clients meet the log: intake of commands, answers, queries, the server list.

The front is volatile. What must outlive a crash (sessions, results) is in the replicated state;
the front only remembers who waits for what, and which numbers of a session the log already
holds, so that a session's commands enter it once and in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec
from attrs import define

from distinv.config import Limits
from distinv.entry import NodeId
from distinv.errors import InvalidRequest
from distinv.server.errands import Errands
from distinv.server.machine import Applied, Machine
from distinv.wire.batch import CloseSession, LogCommand, OpenCommand, SessionCommand
from distinv.wire.frame import SPEAKS
from distinv.wire.messages import (
    Answer,
    EndSession,
    Message,
    NotTaken,
    OpenSession,
    Query,
    QueryFailed,
    Reply,
    Request,
    Servers,
    SessionEnded,
    SessionOpened,
)


class Checked(Protocol):
    """A command that may be taken."""

    @property
    def protocol(self) -> int:
        """The oldest in which a server can carry it out."""
        ...


CheckCommand = Callable[[bytes], Checked]
"""Decodes an untrusted command; raises InvalidRequest."""


class Situation(msgspec.Struct, frozen=True):
    """What the front must know of consensus at this moment."""

    serving: bool
    handing_over: bool
    quorum: bool
    """A majority of the voters is heard."""
    leader: NodeId | None
    leader_address: tuple[str, int] | None
    dissolving: bool = False
    """This cluster gives way to another: its leader takes nothing any more."""
    protocol: int = SPEAKS[0]
    """While serving: the newest that every server speaks."""


_DISSOLVING = "this cluster is dissolving: another one of its name goes on"


@define
class _Read:
    client: NodeId
    query: Query
    index: int = -1
    """-1 until the core says from which index on it may be served."""


@define
class _Waiter:
    client: NodeId
    copy: int


class Front:
    """One server's dealings with its clients."""

    def __init__(
        self, machine: Machine, check_command: CheckCommand, limits: Limits, errands: Errands
    ) -> None:
        self._machine = machine
        self._check_command = check_command
        self._limits = limits
        self._errands = errands
        self._clients: dict[NodeId, int] = {}
        """Who is connected, and when it last spoke."""
        self._waiting: dict[tuple[int, int], _Waiter] = {}
        """Who asked for (session, number): they are answered when it is applied."""
        self._opening: dict[int, _Waiter] = {}
        self._closing: dict[int, NodeId] = {}
        self._in_log: dict[int, int] = {}
        """While serving: the last number of each session that this leader has submitted."""
        self._reads: dict[int, _Read] = {}
        self._next_ticket = 1
        self._behind: list[_Read] = []
        """Local reads that wait for their min_seq."""
        self._out: list[tuple[NodeId, Message]] = []
        self._submit: list[LogCommand] = []
        self._read: list[int] = []
        self.situation = Situation(False, False, False, None, None)

    # --- what the engine takes away -----------------------------------------------------------

    def take_messages(self) -> list[tuple[NodeId, Message]]:
        out, self._out = self._out, []
        return out

    def take_submissions(self) -> list[LogCommand]:
        commands, self._submit = self._submit, []
        return commands

    def take_reads(self) -> list[int]:
        tickets, self._read = self._read, []
        return tickets

    @property
    def clients(self) -> tuple[NodeId, ...]:
        return tuple(self._clients)

    @property
    def pending(self) -> int:
        """Commands that are under way."""
        return len(self._waiting) + len(self._opening) + len(self._closing)

    # --- clients ------------------------------------------------------------------------------

    def heard(self, client: NodeId, now: int) -> bool:
        """A client spoke; True when it is new here."""
        new = client not in self._clients
        if new and len(self._clients) >= self._limits.peers_max:
            oldest = min(self._clients, key=self._clients.__getitem__)
            del self._clients[oldest]
        self._clients[client] = now
        return new

    def forget_silent(self, before: int) -> None:
        self._clients = {peer: seen for peer, seen in self._clients.items() if seen >= before}
        # What they wait for may never come.
        self._behind = [read for read in self._behind if read.client in self._clients]

    def push(self, servers: Servers, clients: Sequence[NodeId]) -> None:
        """The server list changed, or these have none yet: they learn it at once."""
        self._out += [(client, servers) for client in clients]

    # --- commands -----------------------------------------------------------------------------

    def _not_taken(
        self, client: NodeId, key: tuple[int, int], copy: int, reason: str, detail: str = ""
    ) -> None:
        situation = self.situation
        if reason == "no_leader" and situation.dissolving:
            detail = _DISSOLVING
        message = NotTaken(
            *key, copy, reason, detail, situation.leader or 0, situation.leader_address
        )
        self._out.append((client, message))

    def _refusal(self) -> str | None:
        """Why nothing is taken just now."""
        situation = self.situation
        if not situation.serving and situation.leader is not None:
            return "not_leader"
        if not situation.serving:
            return "no_leader" if situation.quorum else "no_quorum"
        if situation.handing_over or situation.dissolving:
            return "no_leader"
        return "overloaded" if self.pending >= self._limits.pending_commands else None

    def on_open(self, client: NodeId, message: OpenSession) -> None:
        refusal = self._refusal()
        key = (0, message.nonce)
        known = self._machine.session_of_nonce(message.nonce)
        taken = message.nonce in self._opening
        if known is not None:
            self._out.append((client, SessionOpened(message.nonce, known)))
        elif refusal is not None and not (taken and self.situation.serving):
            # An open of a leadership that is over keeps its waiter: it may be applied yet.
            self._not_taken(client, key, message.copy, refusal)
        elif taken:
            self._opening[message.nonce] = _Waiter(client, message.copy)
        elif len(message.name) > self._limits.name_chars:
            self._not_taken(client, key, message.copy, "invalid_request", "the name is too long")
        else:
            self._opening[message.nonce] = _Waiter(client, message.copy)
            self._submit.append(OpenCommand(message.nonce, message.name))

    def on_end(self, client: NodeId, message: EndSession) -> None:
        """Closing is idempotent: a copy too many does no harm, so none is refused in words."""
        if message.session in self._closing:
            self._closing[message.session] = client
        elif self._refusal() is None:
            self._closing[message.session] = client
            self._submit.append(CloseSession(message.session))

    def on_request(self, client: NodeId, message: Request) -> None:
        """Take a command at most once, and only right after the number before it."""
        session, number = message.session, message.number
        key = (session, number)
        applied = self._machine.last_number(session)
        if applied is not None and number <= applied:
            result = self._machine.result(session, number)
            if result is not None:
                self._out.append((client, Reply(session, number, result)))
            return  # dropped only after the client said that it needs it no more
        refusal = self._refusal()
        if not self.situation.serving:
            assert refusal is not None
            self._not_taken(client, key, message.copy, refusal)
            return
        # Serving means that everything before this leadership is applied, so what the log
        # holds of a session is what is applied and what was submitted here. A session unknown
        # here is settled at apply: only the log may say "expired".
        before = self._in_log.get(session, applied if applied is not None else number - 1)
        if number <= before and (applied is not None or key in self._waiting):
            self._waiting[key] = _Waiter(client, message.copy)
        elif refusal is not None:
            self._not_taken(client, key, message.copy, refusal)
        elif number != before + 1:
            self._not_taken(client, key, message.copy, "gap", f"expected {before + 1}")
        elif self._acceptable(client, message):
            self._in_log[session] = number
            self._waiting[key] = _Waiter(client, message.copy)
            self._submit.append(SessionCommand(session, number, message.lowest, message.command))

    def _acceptable(self, client: NodeId, message: Request) -> bool:
        if not message.command:
            return True  # a void
        key = (message.session, message.number)
        try:
            needed = self._check_command(message.command).protocol
        except InvalidRequest as problem:
            self._not_taken(client, key, message.copy, "invalid_request", str(problem))
            return False
        if needed > self.situation.protocol:
            detail = (
                f"the command needs protocol {needed}, and not every server of the cluster is "
                f"known to speak more than {self.situation.protocol}: upgrade them all first"
            )
            self._not_taken(client, key, message.copy, "version_mismatch", detail)
            return False
        return True

    def on_not_appended(self, commands: Iterable[LogCommand], reason: str) -> None:
        """These were submitted, but the log will not hold them by that."""
        for command in commands:
            if isinstance(command, SessionCommand):
                key = (command.session, command.number)
                waiter = self._waiting.pop(key, None)
                if waiter is not None:
                    self._not_taken(waiter.client, key, waiter.copy, reason)
            elif isinstance(command, OpenCommand):
                waiter = self._opening.pop(command.nonce, None)
                if waiter is not None:
                    self._not_taken(waiter.client, (0, command.nonce), waiter.copy, reason)
            else:
                self._closing.pop(command.session, None)

    def on_leadership(self, serving: bool) -> None:
        """The leader changed: what was submitted under the old one no longer counts as logged.

        Those who wait are kept, since an entry that survives the change still answers them.
        Once this server serves, everything that survived is applied: the others' copies are in
        no log that can still win, and they are told.
        """
        self._in_log.clear()
        self._closing.clear()
        if not serving:
            return
        waiting, self._waiting = self._waiting, {}
        for key, waiter in waiting.items():
            self._not_taken(waiter.client, key, waiter.copy, "no_leader")
        opening, self._opening = self._opening, {}
        for nonce, waiter in opening.items():
            self._not_taken(waiter.client, (0, nonce), waiter.copy, "no_leader")

    def on_applied(self, applied: Iterable[Applied]) -> None:
        """The log decided: answer whoever waits here."""
        for each in applied:
            if each.kind == "opened":
                waiter = self._opening.pop(each.nonce, None)
                if waiter is not None:
                    opened = SessionOpened(each.nonce, each.session)
                    self._out.append((waiter.client, opened))
                continue
            if each.kind == "closed":
                client = self._closing.pop(each.session, None)
                if client is not None:
                    self._out.append((client, SessionEnded(each.session)))
                continue
            key = (each.session, each.number)
            if each.kind in ("gap", "expired") or self._in_log.get(each.session) == each.number:
                # Nothing of the session is under way any more. Or it was unknown here when its
                # command came, and the log holds less of it than was thought.
                self._in_log.pop(each.session, None)
            waiter = self._waiting.pop(key, None)
            if waiter is None:
                continue
            if each.kind == "result":
                self._out.append((waiter.client, Reply(*key, each.result)))
            elif each.kind in ("expired", "gap"):
                reason = "session_expired" if each.kind == "expired" else "gap"
                self._not_taken(waiter.client, key, waiter.copy, reason)

    def on_installed(self, machine: Machine) -> None:
        """A snapshot took the place of what was applied: who waits for what it holds is told."""
        self._machine = machine
        for key, waiter in list(self._waiting.items()):
            result = machine.result(*key)
            if result is not None:
                del self._waiting[key]
                self._out.append((waiter.client, Reply(*key, result)))
        for nonce, waiter in list(self._opening.items()):
            session = machine.session_of_nonce(nonce)
            if session is not None:
                del self._opening[nonce]
                self._out.append((waiter.client, SessionOpened(nonce, session)))
        self.serve_reads()

    # --- queries ------------------------------------------------------------------------------

    def on_query(self, client: NodeId, query: Query) -> None:
        if not query.linearizable:
            read = _Read(client, query, 0)
            if query.min_seq > self._machine.seq:
                if len(self._behind) < self._limits.pending_reads:
                    self._behind.append(read)
                else:
                    self._fail(client, query, "overloaded")
            else:
                self._answer(read)
            return
        if len(self._reads) >= self._limits.pending_reads:
            self._fail(client, query, "overloaded")
            return
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        self._reads[ticket] = _Read(client, query)
        self._read.append(ticket)

    def on_read_ready(self, tickets: Iterable[int], index: int) -> None:
        for ticket in tickets:
            read = self._reads.get(ticket)
            if read is not None:
                read.index = index
        self.serve_reads(tickets)

    def serve_reads(self, tickets: Iterable[int] | None = None) -> None:
        """Answer every read whose index is applied."""
        position = self._machine.position.index
        for ticket in list(self._reads) if tickets is None else tickets:
            read = self._reads.get(ticket)
            if read is not None and 0 <= read.index <= position:
                del self._reads[ticket]
                self._answer(read)
        if self._behind:
            seq = self._machine.seq
            ready = [read for read in self._behind if read.query.min_seq <= seq]
            self._behind = [read for read in self._behind if read.query.min_seq > seq]
            for read in ready:
                self._answer(read)

    @property
    def reads_waiting(self) -> bool:
        return bool(self._reads or self._behind)

    def on_read_failed(self, tickets: Iterable[int], reason: str) -> None:
        for ticket in tickets:
            read = self._reads.pop(ticket, None)
            if read is not None:
                self._fail(read.client, read.query, reason)

    def _fail(self, client: NodeId, query: Query, reason: str) -> None:
        situation = self.situation
        if reason == "no_leader" and situation.leader is None and not situation.quorum:
            reason = "no_quorum"
        message = QueryFailed(
            query.number, reason, "", situation.leader or 0, situation.leader_address
        )
        self._out.append((client, message))

    def _answer(self, read: _Read) -> None:
        if self._machine.takes_long(read.query.query):
            self._answer_later(read)
            return
        result = self._machine.query(read.query.query)
        self._out.append((read.client, Answer(read.query.number, result)))

    def _answer_later(self, read: _Read) -> None:
        client, number = read.client, read.query.number

        def answer(result: bytes, now: int) -> None:
            self._out.append((client, Answer(number, result)))

        if not self._errands.ask(read.query.query, answer):
            self._fail(client, read.query, "overloaded")
