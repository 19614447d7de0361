"""The only loop of a server: it drives the engine in turns (docs/architecture.md).

A turn takes in what waits (durable writes, probes, datagrams up to a bound, what is due), ends
the engine's turn, hands the write to the storage thread and the datagrams to the transport, and
then applies what is committed, within its budget. So writes are committed and datagrams packed in
groups. Whichever task has a reason takes the turn: the reader of the transport when datagrams
came, the reader of the storage's bell, or the timekeeper. Nothing is awaited within a turn, so
everything that touches the engine happens between two awaits.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup

from distinv.config import Config
from distinv.core.events import InvariantBroken, LeaderChanged
from distinv.core.leader import Leader
from distinv.discovery.api import Discovery
from distinv.entry import NodeId, SnapshotHead
from distinv.errors import DistinvError, StorageError
from distinv.runtime.ground import Ground
from distinv.runtime.observers import LOGGER, Audience, Progress
from distinv.runtime.snapshots import Depot
from distinv.runtime.storage_thread import Committer, StorageInline, StorageThread
from distinv.server.dissolving import Dissolved
from distinv.server.engine import Engine, Turn
from distinv.server.errands import Errand
from distinv.storage.api import Storage
from distinv.transport.api import Address, Datagram, Transport
from distinv.wire.messages import StatusReply

T = TypeVar("T")

Renew = Callable[[Dissolved], Awaitable[Ground]]

_SECOND_US = 1_000_000
_FOREVER_US = 3_600 * _SECOND_US
"""Nothing is due: whoever has set this wakes the loop."""


def _cause_of(error: Exception) -> Exception:
    """What one task failed of; where several did, the one whose failure left the others no store.

    What nobody foresaw goes first, then what the system said; the others have no cause.
    """
    found = [error]
    while isinstance(found[0], ExceptionGroup):
        found[:1] = found[0].exceptions
        found.sort(key=lambda each: (isinstance(each, DistinvError), each.__cause__ is None))
    return found[0]


def monotonic_us() -> int:
    """Microseconds of the clock that never goes back."""
    return time.monotonic_ns() // 1_000


class Driver:
    """Runs one engine until it is stopped or fails. Belongs to one event loop."""

    def __init__(
        self,
        *,
        engine: Engine,
        transport: Transport,
        discovery: Discovery,
        storage: Storage,
        audience: Audience,
        config: Config,
        depot: Depot,
        renew: Renew,
        in_memory: bool = False,
    ) -> None:
        """`renew` sets aside what the engine has and makes a blank one, when its cluster has
        dissolved. `in_memory`: the storage waits for nothing, so nothing is done in threads."""
        self.engine = engine
        self._transport = transport
        self._discovery = discovery
        self._audience = audience
        self._timing = config.timing
        self._limits = config.limits
        self._inbox: deque[Datagram] = deque()
        self.overflowed = 0
        """Datagrams that met a full inbox, since the start."""
        self._refused: deque[NodeId] = deque()
        self._probing: dict[NodeId, None] = {}
        self._persisted: deque[int | StorageError] = deque()
        """What the storage thread says; the only thing that two threads touch."""
        self._bell, self._bell_rope = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_rope.setblocking(False)
        self._in_memory = in_memory
        self._storage = self._committer(storage)
        self._depot = depot
        self._renew = renew
        self._status_before: StatusReply | None = None
        """The cluster has dissolved, and there is no other engine yet: no turns are taken."""
        self._installing = False
        """A snapshot that was received is being looked at."""
        self._errands = 0
        """How many run, or are about to: while they do, the store's file must stay what it is."""
        self._unflushed = 0
        """Entries applied in the store's present transaction, and the time that took."""
        self._unflushed_us = 0
        self._flush_at: int | None = None
        self._deadline = 0
        """When a turn is to be taken though nothing happens."""
        self._wake = anyio.Event()
        self._timer = anyio.CancelScope()
        """Ends the timekeeper's sleep at `_sleeps_until`."""
        self._sleeps_until = 0
        self._changed = anyio.Event()
        self._situation: tuple[object, ...] = ()
        self._progress: Progress | None = None
        self._stopping = False
        self.ended = anyio.Event()
        """The loop has ended: nothing is heard or said any more."""
        self.failure: Exception | None = None
        """Why it ended, unless it was stopped."""

    # --- life -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until `stop`, or a failure, which is kept in `failure`.

        Cancelling does not end it: a leader in office has something to hand over first.
        """
        with anyio.CancelScope(shield=True):
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._read_transport, group)
                    group.start_soon(self._read_discovery)
                    group.start_soon(self._read_storage, group)
                    await self._keep_time(group)
                    group.cancel_scope.cancel()
            except Exception as error:
                self._fail(error)
            finally:
                await self._close()

    def stop(self) -> None:
        """End the loop after the turn at hand."""
        self._stopping = True
        self.wake()

    def _fail(self, error: Exception) -> None:
        error = _cause_of(error)
        if isinstance(error, InvariantBroken):
            broken = StorageError(
                f"the server has stopped because its own rules were broken ({error}). This is a "
                "bug: please report it with the log. Nothing acknowledged is lost; start again"
            )
            broken.__cause__ = error
            error = broken
        self.failure = error
        if isinstance(error, DistinvError):
            self._audience.say(str(error), "error")
        else:
            LOGGER.error("the server failed in a way that nobody foresaw", exc_info=error)

    def _committer(self, storage: Storage) -> Committer:
        kind = StorageInline if self._in_memory else StorageThread
        return kind(storage, self._on_stored)

    async def _close(self) -> None:
        await self._aside(self._storage.close)
        self._bell.close()
        self._bell_rope.close()
        self.ended.set()
        self._changed.set()

    # --- what others may do between turns -------------------------------------------------------

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def transfer(self, target: NodeId | None) -> None:
        """Begin to hand leadership over."""
        self.engine.transfer(target, monotonic_us())
        self.wake()

    def leave(self, *, give_up: bool = False) -> None:
        """Begin to give the vote up, or stay after all."""
        if give_up:
            self.engine.leaving.give_up()
        else:
            self.engine.leaving.begin(monotonic_us())
        self.wake()

    @property
    def renewing(self) -> bool:
        """Its cluster has dissolved; it is about to begin anew."""
        return self._status_before is not None

    def status(self) -> StatusReply:
        """In the words of `distinv status`."""
        return self._status_before or self.engine.status()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it is looked at when leadership changes here.

        Raises the failure when the server fails meanwhile.
        """
        while not condition():
            if self.failure is not None:
                raise self.failure
            if self.ended.is_set():
                raise StorageError("the server has been stopped")
            await self._changed.wait()

    # --- readers --------------------------------------------------------------------------------

    async def _read_transport(self, group: TaskGroup) -> None:
        receive = self._transport.receive
        while True:
            self._take_in(await receive())
            self._take_turn(group)

    def _take_in(self, datagrams: list[Datagram]) -> None:
        room = self._limits.inbox_datagrams - len(self._inbox)
        if len(datagrams) > room:
            self.overflowed += len(datagrams) - room
            datagrams = datagrams[:room]
        self._inbox.extend(datagrams)

    async def _read_discovery(self) -> None:
        """Without announcements servers may still know each other: that is no reason to stop."""

        def deliver(datagram: Datagram) -> None:
            self._take_in([datagram])
            self._wake.set()

        try:
            await self._discovery.listen(deliver)
        except Exception as error:
            self._audience.say(f"does not hear announcements any more: {error!r}", "warning")

    async def _read_storage(self, group: TaskGroup) -> None:
        while True:
            await anyio.wait_readable(self._bell)
            self._bell.recv(self._limits.turn_datagrams)
            if self._persisted:  # unless a turn in between has seen it
                self._take_turn(group)

    def _on_stored(self, outcome: int | StorageError) -> None:
        """Called from the storage thread."""
        self._persisted.append(outcome)
        try:
            self._bell_rope.send(b"\0")
        except OSError:
            pass  # the bell is ringing already, or nobody listens any more

    async def _probe(self, peer: NodeId, address: Address) -> None:
        try:
            if await self._transport.probe(address):
                self._refused.append(peer)
                self._wake.set()
        finally:
            del self._probing[peer]

    async def _run_errand(self, errand: Errand) -> None:
        try:
            result = await self._aside(errand.run, abandon=True)
        except StorageError as error:
            if errand.fatal:
                raise
            errand.fail()
            self._audience.say(f"a question stays unanswered: {error}", "warning")
        else:
            errand.finish(result, monotonic_us())
            self._wake.set()
        finally:
            self._errands -= 1

    async def _install(self, head: SnapshotHead) -> None:
        """Look at the snapshot that was received, beside the loop, and exchange the stores.

        The exchange itself takes milliseconds, and nothing else happens meanwhile.
        """
        engine, depot = self.engine, self._depot
        try:
            await self._aside(lambda: depot.look(head))
        except StorageError as error:
            depot.discard()
            rest_s = engine.refused_snapshot(monotonic_us()) // _SECOND_US
            self._audience.say(
                f"cannot use the snapshot that was received: {error} Asks again in {rest_s} s",
                "warning",
            )
        else:
            engine.exchanging = True
            while self._errands:
                await anyio.sleep(self._timing.tick_us / _SECOND_US)
            engine.exchanging = False
            if engine.wants(head):
                engine.machine.abandon()
                self._unflushed, self._unflushed_us, self._flush_at = 0, 0, None
                engine.installed(depot.install(head), head, monotonic_us())
            else:
                depot.discard()
                engine.not_installed()
        self._installing = False
        self._wake.set()

    async def _begin_anew(self, dissolved: Dissolved) -> None:
        """The engine is done with its cluster: another one, which is blank, takes its place."""
        self._audience.say(
            f"cluster {dissolved.cluster_id:016x} is dissolved: this server sets aside what it "
            f"has of it, and begins anew",
            "warning",
        )
        with anyio.CancelScope(shield=True):
            while self._errands:
                await anyio.sleep(self._timing.tick_us / _SECOND_US)
            await self._aside(self._storage.close)
            self._heed_disk(monotonic_us())
            ground = await self._renew(dissolved)
            assert ground.engine is not None, "made for this"
            self.engine, self._depot = ground.engine, ground.depot
            self._storage = self._committer(ground.storage)
        self._unflushed, self._unflushed_us, self._flush_at = 0, 0, None
        self._deadline = 0
        self._status_before = None
        self._wake.set()

    async def _aside(self, work: Callable[[], T], *, abandon: bool = False) -> T:
        """What takes too long for the loop runs in a thread, unless all is in memory."""
        if self._in_memory:
            return work()
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=abandon)

    # --- turns ----------------------------------------------------------------------------------

    async def _keep_time(self, group: TaskGroup) -> None:
        """Take a turn when something is due, when somebody calls, and while work is left."""
        while not self._stopping:
            if self._wake.is_set():
                self._wake = anyio.Event()
                self._take_turn(group)
            elif self._deadline <= monotonic_us():
                self._take_turn(group)
            await self._sleep()
        self._take_turn(group)  # what is still to be said

    async def _sleep(self) -> None:
        wait_us = self._deadline - monotonic_us()
        if self._wake.is_set() or wait_us <= 0:
            await anyio.lowlevel.checkpoint()
            return
        self._sleeps_until = self._deadline
        with anyio.move_on_after(wait_us / _SECOND_US) as self._timer:
            await self._wake.wait()
        self._sleeps_until = 0

    def _take_turn(self, group: TaskGroup) -> None:
        """One turn, by whichever task has a reason; none of them awaits anything in it.

        What was heard is answered and written before anything is applied: the disk and the
        other servers work meanwhile.
        """
        if self.renewing:
            return
        engine, now = self.engine, monotonic_us()
        self._hear(now)
        self._carry_out(engine.end_turn(now), group)
        if engine.twins.displaced is not None:
            raise engine.twins.displaced
        if engine.apply_waiting:
            self._apply(monotonic_us())
            self._carry_out(engine.end_turn(monotonic_us()), group)
        elif self._flush_at is not None and self._flush_at <= now:
            self._flush()
        if engine.leaving.done and not self._stopping:
            self._audience.say("has left the cluster: its data directory is not needed any more")
            self.stop()
        dissolved = None if self._installing or self._stopping else engine.dissolved(now)
        if dissolved is not None:
            self._status_before, self._deadline = engine.status(), now + _FOREVER_US
            group.start_soon(self._begin_anew, dissolved)
            return
        times = (engine.deadline(), self._flush_at)
        self._deadline = min(time for time in times if time is not None)
        self._plan()

    def _plan(self) -> None:
        """See to it that the next turn is not later than it has to be."""
        if self._inbox or self._refused or self.engine.apply_waiting:
            self._wake.set()
        elif self._deadline < self._sleeps_until:
            wait_us = self._deadline - monotonic_us()
            self._timer.deadline = anyio.current_time() + wait_us / _SECOND_US
            self._sleeps_until = self._deadline

    def _hear(self, now: int) -> None:
        engine = self.engine
        engine.node.clocks.own_offset_us = time.time_ns() // 1_000 - now
        self._heed_disk(now)
        while self._refused:
            engine.refused(self._refused.popleft(), now)
        inbox, receive, until = self._inbox, engine.receive, now + self._timing.tick_us
        for _ in range(min(len(inbox), self._limits.turn_datagrams)):
            data, address = inbox.popleft()
            receive(data, address, now)
            if monotonic_us() >= until:
                break  # a large datagram holds hundreds of commands
        if self._deadline <= now:
            engine.on_deadline(now)

    def _heed_disk(self, now: int) -> None:
        while self._persisted:
            ticket = self._persisted.popleft()
            if isinstance(ticket, StorageError):
                raise ticket
            self.engine.persisted(ticket, now)

    def _apply(self, now: int) -> None:
        """Apply what is committed, for as long as a turn may take."""
        engine, timing = self.engine, self._timing
        at, until = now, now + timing.tick_us
        while engine.apply_waiting and at < until:
            engine.apply_more(now)
            self._unflushed += 1
            before, at = at, monotonic_us()
            self._unflushed_us += at - before
            if (
                self._unflushed >= self._limits.store_flush_entries
                or self._unflushed_us >= timing.store_flush_applied_us
            ):
                self._flush()
                at = monotonic_us()
        if self._unflushed:
            self._flush_at = now + timing.store_flush_us

    def _flush(self) -> None:
        self._unflushed, self._unflushed_us, self._flush_at = 0, 0, None
        self.engine.machine.flush()

    def _carry_out(self, turn: Turn, group: TaskGroup) -> None:
        if turn.write is not None:
            self._storage.submit(turn.write.ticket, turn.write.records)
        if turn.datagrams:
            self._transport.send(turn.datagrams)
        for peer, address in turn.probes:
            if peer not in self._probing and len(self._probing) < self._limits.servers_max:
                self._probing[peer] = None
                group.start_soon(self._probe, peer, address)
        if turn.snapshot is not None and not self._installing:
            self._installing = True
            group.start_soon(self._install, turn.snapshot)
        self._errands += len(turn.errands)  # not by their tasks, which begin some time
        for errand in turn.errands:
            group.start_soon(self._run_errand, errand)
        self._tell(turn)

    def _tell(self, turn: Turn) -> None:
        """Spread the news: lines, who leads, and to those who listen how far the log has come."""
        node = self.engine.node
        events: list[object] = list(turn.lines)
        situation = (node.leader, node.leader_ballot, node.serving)
        hand_over = isinstance(node.role, Leader) and node.role.handing_over
        if (node.role, hand_over, situation) != self._situation:
            self._situation = (node.role, hand_over, situation)
            self._changed.set()
            self._changed = anyio.Event()
            events.append(LeaderChanged(*situation))
        if self._audience.attentive:
            progress = Progress(node.commit, node.applied, self.engine.machine.seq)
            if progress != self._progress:
                self._progress = progress
                events.append(progress)
        if events:
            self._audience.tell(events)
