"""The client as a machine without I/O: datagrams, calls and the time in, datagrams and ends out.

A driver hands in what was received and the calls of its users, and after every turn sends what
`flush` returns and hands out what `take_completions` returns; it calls `on_deadline` when the
time that `deadline` names has come. Nothing here reads a clock, a socket or a global.

How a call ends, exactly once (`docs/protocol`: clients):

- with an answer;
- with `Unavailable`, when no copy of it was sent or every copy was answered "not taken"
  (also `PermissionDenied` and `VersionMismatch`, when that is why no server could be reached);
- with `OutcomeUnknown`, which carries the key to ask again with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from distinv.client.calls import CallBook, Completion
from distinv.client.endings import Ending, Endings
from distinv.client.questions import Question, Questions
from distinv.client.refusals import RETRY_AFTER
from distinv.client.router import Router
from distinv.client.servers import Server
from distinv.client.stream import Command, CommandStream
from distinv.client.survey import Survey, Surveys
from distinv.config import Limits, Timing
from distinv.entry import NodeId
from distinv.errors import BadDatagram, Overloaded
from distinv.transport.api import Address
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint, Incoming, LinkReset, Notice, PeerSeen
from distinv.wire.link import sooner
from distinv.wire.messages import (
    Answer,
    Beacon,
    ClusterDissolved,
    NotTaken,
    Pong,
    QueryFailed,
    Reply,
    Servers,
    SessionEnded,
    SessionOpened,
    StatusReply,
)

NOTICES_MAX = 16
"""Between two `take_notices`; they repeat themselves."""


class ClientSession:
    """One client of one cluster. Times are microseconds of any clock that does not go back."""

    def __init__(
        self,
        *,
        cluster_name: str,
        endpoint: Endpoint,
        timing: Timing,
        limits: Limits,
        random: Random,
        name: str,
        targets: Callable[[], Sequence[Address]],
        nonces: Random | None = None,
    ) -> None:
        """`name` is the actor in the ledger; `targets` tells where to look for servers.

        `nonces` draws what names a session to be opened, `random` by default. Two clients that
        draw the same share one session and its numbers, so outside a simulation these must not
        follow from a seed.
        """
        self._endpoint = endpoint
        self._timing = timing
        self._calls_max = limits.pending_commands + limits.pending_reads
        self._book = CallBook()
        self._router = Router(
            cluster_name=cluster_name,
            endpoint=endpoint,
            timing=timing,
            limits=limits,
            random=random,
            targets=targets,
            work=self,
        )
        self._stream = CommandStream(
            book=self._book,
            random=random,
            timing=timing,
            limits=limits,
            nonces=nonces or random,
            name=name,
            unavailable=self._router.unavailable,
        )
        self._questions = Questions(
            book=self._book,
            random=random,
            timing=timing,
            limits=limits,
            unavailable=self._router.unavailable,
        )
        self._surveys = Surveys(
            book=self._book,
            patience_us=timing.client_silence_us,
            unavailable=self._router.unavailable,
        )
        self._endings = Endings(
            book=self._book,
            retry_us=timing.client_silence_us,
            unavailable=self._router.unavailable,
        )
        self._notices: list[Notice] = []
        self._expected_at: int | None = None
        """The last `deadline`: coming much later means that this process stood still."""
        self._handlers: dict[type, Callable[[Server, Any, int], None]] = {
            Reply: self._on_reply,
            Answer: self._on_answer,
            NotTaken: self._on_not_taken,
            QueryFailed: self._on_query_failed,
            SessionOpened: self._on_opened,
            SessionEnded: self._on_ended,
            Servers: self._router.on_servers,
            Pong: self._router.on_pong,
            StatusReply: self._on_status,
        }

    # --- calls --------------------------------------------------------------------------------

    def submit(self, command: bytes, now: int, deadline: int, key: str | None = None) -> int:
        """Take in a command, to be applied once and after those submitted before it.

        `key` is the caller's own idempotency key, named by `OutcomeUnknown`. The completion's
        value is an encoded `distinv.inventory.commands.Outcome`. Raises InvalidRequest and
        Overloaded.
        """
        self._router.wake(now)
        return self._stream.submit(command, deadline, key)

    def query(
        self, query: bytes, now: int, deadline: int, *, linearizable: bool = True, min_seq: int = 0
    ) -> int:
        """Take in a read; it has no order. The completion's value is the encoded answer.

        A read that is not linearizable is answered from what one server has, which is at least
        at `min_seq`. Raises Overloaded.
        """
        self._router.wake(now)
        return self._questions.submit(query, linearizable, min_seq, deadline)

    def order(
        self, what: str, server: int, now: int, deadline: int, *, confirmed: bool = False
    ) -> int:
        """Wish something of the cluster itself; the completion's value is empty.

        It is sent again until it is so, or the time is over. Raises Overloaded.
        """
        self._router.wake(now)
        return self._questions.submit(b"", True, 0, deadline, (what, server, confirmed))

    def status(self, now: int, deadline: int, *, digest: bool = True) -> int:
        """Ask every server what it is. The completion's value is a tuple of `StatusReply`.

        Without the inventory's `digest` they answer at once. Raises Overloaded.
        """
        self._check_room()
        self._router.wake(now)
        return self._surveys.submit(deadline, digest=digest)

    def end_session(self, session: int, now: int, deadline: int) -> int:
        """Close another client's session through the log; the completion's value is empty.

        Raises Overloaded.
        """
        self._check_room()
        self._router.wake(now)
        return self._endings.submit(session, now, deadline)

    def outcome_of(self, session: int, number: int, deadline: int) -> int | None:
        """A call that ends with the outcome of one of this client's own numbers.

        None when this client neither remembers it nor is going to learn it: ask the cluster.
        Raises Overloaded.
        """
        self._check_room()
        return self._stream.watch(session, number, deadline)

    def _check_room(self) -> None:
        if len(self._book) >= self._calls_max:
            raise Overloaded("This client has too many open calls.", retry_after=RETRY_AFTER)

    def detach(self, call: int) -> None:
        """The caller has gone: there will be no completion. Whether it takes effect is open."""
        match self._book.get(call):
            case Command() as command:
                self._stream.detach(command)
            case Question() as question:
                self._questions.detach(question)
            case Survey() as survey:
                self._surveys.detach(survey)
            case Ending() as ending:
                self._endings.detach(ending)
            case _:
                self._book.abandon(call)

    def end_all(self, now: int) -> None:
        """This client stops: end every open call by the rule above."""
        for call in self._book.everything():
            call.expire(now)

    def take_completions(self) -> list[Completion]:
        """How calls ended since the last time."""
        return self._book.take()

    def take_notices(self) -> list[Notice]:
        """What a person should know: other keys, versions, clusters."""
        notices, self._notices = self._notices, []
        return notices

    # --- what is known ------------------------------------------------------------------------

    @property
    def session(self) -> int:
        """The id of the open session, 0 before the first command."""
        return self._stream.session

    @property
    def home(self) -> NodeId | None:
        """The server talked to."""
        return self._router.home

    @property
    def leader(self) -> NodeId | None:
        return self._router.table.leader

    @property
    def servers(self) -> list[Server]:
        """The servers known, in the order they became known."""
        return self._router.table.everything()

    # --- the network --------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address, now: int) -> None:
        """Take one datagram. Raises nothing, whatever it holds."""
        incoming = self._endpoint.receive_untrusted(data, address, now)
        if self._endpoint.events:
            self._take_events(now)
        for item in incoming:
            self._deliver(item, now)

    def on_refused(self, address: Address, now: int) -> None:
        """The kernel says that nobody listens at an address: whoever lived there is gone."""
        self._router.on_refused(address, now)

    def probes(self) -> list[Address]:
        """Addresses to ask the kernel about, since nothing was heard from there for a while."""
        return self._router.probes()

    def on_deadline(self, now: int) -> None:
        expected, self._expected_at = self._expected_at, None
        if expected is not None and now - expected > self._timing.client_ping_us:
            self._router.forgive(now)
            self._stream.forgive(now)
            self._questions.forgive(now)
        self._endpoint.on_deadline(now)
        self._take_events(now)
        self._book.expire(now)
        self._surveys.on_deadline(now)
        self._retry_unanswered(now)
        self._router.on_deadline(now)

    def deadline(self) -> int:
        """When to call `on_deadline`, unless something happens before. Call after `flush`."""
        first = self._router.deadline()
        if (due := self._endpoint.deadline()) is not None and due < first:
            first = due
        if (due := self._book.first_deadline()) is not None and due < first:
            first = due
        if (due := self._surveys.deadline()) is not None and due < first:
            first = due
        if self._router.ready and (due := self._work_due()) is not None and due < first:
            first = due
        self._expected_at = first
        return first

    def _work_due(self) -> int | None:
        first = sooner(self._stream.deadline(), self._questions.deadline())
        return sooner(first, self._endings.deadline())

    def flush(self, now: int) -> list[tuple[Address, bytes]]:
        """The datagrams to send now."""
        self._pump(now)
        if self._endpoint.events:
            self._take_events(now)
        self._router.update(now)
        return self._endpoint.flush(now)

    # --- what the router asks and tells -------------------------------------------------------

    @property
    def owed(self) -> bool:
        return (
            self._stream.under_way
            or self._questions.under_way
            or self._surveys.under_way
            or self._endings.under_way
        )

    @property
    def wanted(self) -> bool:
        return len(self._book) > 0

    @property
    def bound(self) -> bool:
        return self._stream.session != 0

    def rewind(self, now: int, *, pause: bool = False) -> None:
        self._stream.rewind(now, pause=pause)
        self._questions.rewind()
        self._endings.rewind(now)

    def silent(self, now: int) -> None:
        self._stream.silent(now)
        self._questions.rewind()
        self._endings.rewind(now)

    def resume(self) -> None:
        self._stream.resume()
        self._questions.resume()

    def deny(self, now: int) -> None:
        self.end_all(now)

    # --- inside a turn ------------------------------------------------------------------------

    def _retry_unanswered(self, now: int) -> None:
        impatient_at = self._stream.impatient_at()
        if impatient_at is not None and now >= impatient_at:
            self._router.leave_impatient(now, silent=True)
        if self._questions.lose_patience(now):
            self._router.leave_impatient(now, silent=False)

    def _pump(self, now: int) -> None:
        """Hand to the link what may be sent to the home now."""
        home = self._router.home
        if home is None or not self._router.ready:
            return
        sent = self._pump_commands(home, now)
        sent |= self._pump_queries(home, now)
        sent |= self._pump_endings(home, now)
        if self._surveys.under_way:
            sent = True
            self._pump_surveys(now)
        if sent:
            self._router.connect_home(now)

    def _pump_commands(self, home: NodeId, now: int) -> bool:
        opening = self._stream.next_open(now)
        if opening is not None:
            self._endpoint.send(home, encode(opening), now)
            return True
        sent = False
        next_request, send = self._stream.next_request, self._endpoint.send
        while (request := next_request(now)) is not None:
            sent = True
            if not send(home, encode(request), now):
                break
        return sent

    def _pump_queries(self, home: NodeId, now: int) -> bool:
        sent = False
        next_query, send = self._questions.next_query, self._endpoint.send
        while (query := next_query(now)) is not None:
            sent = True
            if not send(home, encode(query), now):
                break
        return sent

    def _pump_endings(self, home: NodeId, now: int) -> bool:
        """Only a leader ends sessions, and another server does not say that it cannot."""
        endings = self._endings.questions(now)
        if not endings:
            return False
        for ending in endings:
            self._endpoint.send(home, encode(ending), now)
        self._router.move_to_leader(now)
        return True

    def _pump_surveys(self, now: int) -> None:
        for node, question in self._surveys.questions(self._reachable(), now):
            if not self._endpoint.connected(node):
                self._router.touch(node, now)
            self._endpoint.send(node, encode(question), now)

    def _reachable(self) -> list[NodeId]:
        servers = self._router.table.everything()
        return [server.node for server in servers if server.address is not None]

    def _take_events(self, now: int) -> None:
        for event in self._endpoint.take_events():
            match event:
                case LinkReset():
                    self._router.on_link_reset(event, now)
                case PeerSeen():
                    self._router.on_peer_seen(event, now)
                case Notice():
                    self._router.on_notice(event, now)
                    if len(self._notices) < NOTICES_MAX:
                        self._notices.append(event)

    # --- messages -----------------------------------------------------------------------------

    def _deliver(self, incoming: Incoming, now: int) -> None:
        try:
            message = decode_untrusted(incoming.body)
        except BadDatagram:
            return
        if isinstance(message, Beacon):
            self._router.on_beacon(incoming, message, now)
            return
        if isinstance(message, ClusterDissolved):
            self._router.on_dissolved(message, now)
            return
        if not incoming.fresh or incoming.foreign:
            return
        server = self._router.table.get(incoming.peer)
        handler = self._handlers.get(type(message))
        if server is None or handler is None:
            return
        handler(server, message, now)
        self._router.heard(server, now)

    def _on_reply(self, server: Server, message: Reply, now: int) -> None:
        self._stream.reply(message, now)
        self._router.served(now)

    def _on_answer(self, server: Server, message: Answer, now: int) -> None:
        self._questions.answer(message)

    def _on_opened(self, server: Server, message: SessionOpened, now: int) -> None:
        self._stream.opened(message, now)

    def _on_ended(self, server: Server, message: SessionEnded, now: int) -> None:
        self._endings.ended(message)

    def _on_not_taken(self, server: Server, message: NotTaken, now: int) -> None:
        self._stream.not_taken(message, now)
        self._router.on_not_taken(
            server, message.reason, message.leader, message.leader_address, now
        )

    def _on_query_failed(self, server: Server, message: QueryFailed, now: int) -> None:
        self._questions.failed(message, now)
        self._router.on_not_taken(
            server, message.reason, message.leader, message.leader_address, now
        )

    def _on_status(self, server: Server, message: StatusReply, now: int) -> None:
        for info in message.servers:
            self._router.table.told(NodeId(info.node), info.address, info.name)
        self._surveys.reply(server.node, message, self._reachable())
