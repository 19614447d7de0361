"""The driver by itself, with an engine that only takes notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Event
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from attrs import define, evolve, field
from cluster_kit import DEADLINE_S

from distinv import Config
from distinv.config import Limits
from distinv.core.events import Tell, Write
from distinv.entry import NO_BALLOT, ORIGIN, SnapshotHead, VoterSet
from distinv.errors import StorageError
from distinv.plugins.observer import ObserverContext
from distinv.runtime.driver import Driver, monotonic_us
from distinv.runtime.observers import Audience
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.dissolving import Dissolved
from distinv.server.engine import Turn
from distinv.server.errands import Errand
from distinv.storage.api import PromiseRecord, Record
from distinv.testing.cluster import quick
from distinv.transport.api import Address, Datagram

pytestmark = pytest.mark.anyio

PEER = ("127.0.0.1", 4747)
FAR_US = 3_600_000_000
GONE = Dissolved(77, 88)
HEAD = SnapshotHead(ORIGIN, 0, 0, NO_BALLOT, VoterSet("shop", 77, ()), 1, bytes(16))


@define
class Role:
    handing_over: bool = False


@define
class StubClocks:
    own_offset_us: int = 0


@define
class StubNode:
    clocks: StubClocks = field(factory=StubClocks)
    leader: int | None = None
    leader_ballot: tuple[int, int] = (0, 0)
    serving: bool = False
    role: Role = field(factory=Role)
    commit: int = 0
    applied: int = 0


@define
class StubMachine:
    seq: int = 0
    flushes: int = 0
    abandon: Callable[[], None] = lambda: None

    def flush(self) -> None:
        self.flushes += 1


class StubEngine:
    """Answers every datagram with itself; applies what it is told is committed."""

    def __init__(self) -> None:
        self.node = StubNode()
        self.machine = StubMachine()
        self.leaving = SimpleNamespace(done=False)
        self.twins = SimpleNamespace(displaced=None)
        self.notes: list[Any] = []
        self.gone: Dissolved | None = None
        self.due = monotonic_us() + FAR_US
        self.exchanging = False
        self.to_apply = 0
        self.next_turn: dict[str, Any] = {}
        self._out: list[tuple[Address, bytes]] = []

    def receive(self, data: bytes, address: Address, now: int) -> None:
        self.notes.append(("received", data))
        self._out.append((address, data))

    def dissolved(self, now: int) -> Dissolved | None:
        return self.gone

    def wants(self, head: SnapshotHead) -> bool:
        return True

    def installed(self, machine: StubMachine, head: SnapshotHead, now: int) -> None:
        self.machine = machine
        self.notes.append(("installed",))

    def status(self) -> str:
        return f"as of {len(self.notes)} notes"

    def persisted(self, ticket: int, now: int) -> None:
        self.notes.append(("persisted", ticket))

    def refused(self, peer: int, now: int) -> None:
        self.notes.append(("refused", peer))

    def deadline(self) -> int:
        return self.due

    def on_deadline(self, now: int) -> None:
        if self.due <= now:
            self.notes.append(("due",))
            self.due = monotonic_us() + FAR_US

    @property
    def apply_waiting(self) -> bool:
        return self.to_apply > 0

    def apply_more(self, now: int) -> None:
        self.to_apply -= 1
        self.notes.append(("applied",))

    def end_turn(self, now: int) -> Turn:
        self.notes.append(("turn",))
        content: dict[str, Any] = {"write": None, "probes": [], "lines": [], "errands": []}
        content["snapshot"] = None
        content, self.next_turn = content | self.next_turn, {}
        out, self._out = self._out, []
        return Turn(datagrams=out, **content)


class StubTransport:
    def __init__(self) -> None:
        self.sent: list[tuple[Address, bytes]] = []
        self.refusing: list[Address] = []
        self.probes = 0
        self._send, self._receive = anyio.create_memory_object_stream[list[Datagram]](100)

    address = PEER
    payload_bytes = 1_200

    def arrive(self, *bodies: bytes) -> None:
        self._send.send_nowait([(body, PEER) for body in bodies])

    def send(self, datagrams: Iterable[tuple[Address, bytes]]) -> None:
        self.sent += datagrams

    async def receive(self) -> list[Datagram]:
        return await self._receive.receive()

    async def probe(self, address: Address) -> bool:
        self.probes += 1
        await anyio.lowlevel.checkpoint()
        return address in self.refusing

    async def aclose(self) -> None:
        self._send.close()
        self._receive.close()


class StubDiscovery:
    def targets(self) -> Sequence[Address]:
        return ()

    async def listen(self, deliver: Callable[[Datagram], None]) -> None:
        deliver((b"beacon", PEER))
        raise OSError("the interface is gone")

    async def aclose(self) -> None: ...


class StubStorage:
    def __init__(self) -> None:
        self.committed: list[Record] = []

    def commit(self, records: Sequence[Record]) -> None:
        self.committed += records


class Bench:
    """A driver running in a task group; `until` waits for what the engine noted."""

    def __init__(self, config: Config | None = None, *, in_memory: bool = False) -> None:
        self.engine = StubEngine()
        self.transport = StubTransport()
        self.storage = StubStorage()
        self.heard: list[object] = []
        self.driver = Driver(
            engine=self.engine,  # type: ignore[arg-type]
            transport=self.transport,
            discovery=StubDiscovery(),
            storage=self.storage,  # type: ignore[arg-type]
            audience=Audience([("bench", self._observer)], "shop", "node"),
            config=config or quick(),
            depot=MemoryDepot(Limits()),
            renew=self.renew,  # type: ignore[arg-type]
            in_memory=in_memory,
        )
        self.renewed: list[Dissolved] = []
        self.may_renew = anyio.Event()

    async def renew(self, dissolved: Dissolved) -> SimpleNamespace:
        self.renewed.append(dissolved)
        await self.may_renew.wait()
        self.engine, self.storage = StubEngine(), StubStorage()
        return SimpleNamespace(engine=self.engine, storage=self.storage, depot=None)

    async def dissolve(self) -> StubEngine:
        """The engine is done with its cluster; returns it once it is about to be replaced."""
        old = self.engine
        await self.until("turn")
        old.gone = GONE
        self.driver.wake()
        with anyio.fail_after(DEADLINE_S):
            while not self.renewed:
                await anyio.sleep(0)
        old.notes.clear()
        return old

    def _observer(self, context: ObserverContext) -> Bench:
        return self

    def on_events(self, events: Sequence[object]) -> None:
        self.heard += events

    async def __aenter__(self) -> Bench:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self.driver.run)
        return self

    async def __aexit__(self, *what: Any) -> None:
        self.driver.stop()
        with anyio.fail_after(DEADLINE_S):
            await self.driver.ended.wait()
        await self._group.__aexit__(None, None, None)
        await self.transport.aclose()

    async def until(self, *note: Any) -> None:
        with anyio.fail_after(DEADLINE_S):
            while note not in self.engine.notes:
                await anyio.sleep(0)


async def test_a_batch_of_datagrams_is_one_turn() -> None:
    async with Bench() as bench:
        await bench.until("received", b"beacon")
        bench.engine.notes.clear()
        bench.transport.arrive(b"a", b"b", b"c")
        await bench.until("turn")
        received = [("received", body) for body in (b"a", b"b", b"c")]
        assert bench.engine.notes == [*received, ("turn",)]
        assert bench.transport.sent[-3:] == [(PEER, b"a"), (PEER, b"b"), (PEER, b"c")]


async def test_a_flood_takes_several_turns() -> None:
    config = quick()
    config = evolve(config, limits=evolve(config.limits, turn_datagrams=2, inbox_datagrams=5))
    async with Bench(config) as bench:
        await bench.until("received", b"beacon")
        bench.engine.notes.clear()
        bench.transport.arrive(*(b"%d" % number for number in range(7)))
        await bench.until("received", b"4")
        await bench.until("turn")
        assert [note for note in bench.engine.notes if note[0] == "received"] == [
            ("received", b"%d" % number) for number in range(5)
        ]
        assert bench.engine.notes[:4] == [
            ("received", b"0"),
            ("received", b"1"),
            ("turn",),
            ("received", b"2"),
        ]
        assert bench.driver.overflowed == 2


async def test_a_write_comes_back_as_persisted() -> None:
    async with Bench() as bench:
        record = PromiseRecord((1, 7))  # type: ignore[arg-type]
        bench.engine.next_turn = {"write": Write(4, (record,))}
        bench.driver.wake()
        await bench.until("persisted", 4)
        assert bench.storage.committed == [record]


async def test_a_probe_that_is_refused_comes_back_and_one_runs_at_a_time() -> None:
    async with Bench() as bench:
        bench.transport.refusing.append(PEER)
        bench.engine.next_turn = {"probes": [(7, PEER), (7, PEER), (8, ("127.0.0.1", 1))]}
        bench.driver.wake()
        await bench.until("refused", 7)
        assert ("refused", 8) not in bench.engine.notes
        assert bench.transport.probes == 2


async def test_time_passes_though_nothing_happens() -> None:
    async with Bench() as bench:
        await bench.until("turn")
        bench.engine.due = monotonic_us() + 1_000
        bench.transport.arrive(b"an earlier deadline is heeded")
        await bench.until("due")


async def test_answers_leave_before_anything_is_applied() -> None:
    async with Bench() as bench:
        await bench.until("received", b"beacon")
        bench.engine.notes.clear()
        bench.engine.to_apply = 2
        bench.transport.arrive(b"a")
        await bench.until("applied")
        assert bench.engine.notes == [
            ("received", b"a"),
            ("turn",),
            ("applied",),
            ("applied",),
            ("turn",),
        ]


async def test_the_store_is_flushed_in_groups_and_when_it_is_quiet() -> None:
    config = quick()
    config = evolve(
        config,
        limits=evolve(config.limits, store_flush_entries=10),
        timing=evolve(config.timing, store_flush_us=1_000),
    )
    async with Bench(config) as bench:
        bench.engine.to_apply = 25
        bench.driver.wake()
        with anyio.fail_after(DEADLINE_S):
            while bench.engine.machine.flushes < 3:
                await anyio.sleep(0)
        assert bench.engine.notes.count(("applied",)) == 25
        before = bench.engine.notes.count(("turn",))
        assert before > 1


async def test_an_errand_runs_beside_the_loop() -> None:
    async with Bench() as bench:
        results: list[Any] = []

        def finish(result: Any, now: int) -> None:
            results.append(result)
            bench.engine.notes.append(("finished",))

        errand = Errand(lambda: 42, finish, lambda: None)
        bench.engine.next_turn = {"errands": [errand]}
        bench.driver.wake()
        await bench.until("finished")
        assert results == [42]


async def test_no_store_is_exchanged_under_an_errand_that_has_yet_to_begin() -> None:
    """Of an errand's task that had not taken its first step nobody knew: a checkpoint met a closed
    store, and the server stopped."""
    done: list[str] = []

    class Depot:
        def look(self, head: SnapshotHead) -> None: ...

        def install(self, head: SnapshotHead) -> StubMachine:
            return StubMachine()

    async with Bench(in_memory=True) as bench:
        engine = bench.engine
        engine.machine.abandon = lambda: done.append("closed")
        bench.driver._depot = Depot()  # type: ignore[assignment]
        await bench.until("turn")
        checkpoint = Errand(
            lambda: done.append("checkpoint"), lambda result, now: None, lambda: None, fatal=True
        )
        engine.next_turn = {"snapshot": HEAD, "errands": [checkpoint]}
        bench.driver.wake()
        await bench.until("installed")
    assert done == ["checkpoint", "closed"]


async def test_a_dissolved_engine_is_replaced_by_a_blank_one() -> None:
    async with Bench() as bench:
        old = await bench.dissolve()
        assert bench.driver.renewing
        assert str(bench.driver.status()).startswith("as of ")
        bench.transport.arrive(b"meanwhile")
        bench.may_renew.set()
        await bench.until("received", b"meanwhile")
        assert not bench.driver.renewing
        assert bench.driver.engine is bench.engine  # type: ignore[comparison-overlap]
        record = PromiseRecord((1, 7))  # type: ignore[arg-type]
        bench.engine.next_turn = {"write": Write(1, (record,))}
        bench.driver.wake()
        await bench.until("persisted", 1)
        assert bench.storage.committed == [record]
        assert bench.renewed == [GONE]
        assert old.notes == []
    told = [event.text for event in bench.heard if isinstance(event, Tell)]
    assert any(text.startswith(f"cluster {77:016x} is dissolved") for text in told)


async def test_no_store_is_replaced_under_an_errand() -> None:
    async with Bench() as bench:
        may_end, seen = Event(), list[Any]()
        bench.engine.next_turn = {
            "errands": [Errand(may_end.wait, lambda result, now: seen.append(result), lambda: None)]
        }
        bench.engine.gone = GONE
        bench.driver.wake()
        with anyio.fail_after(DEADLINE_S):
            while not bench.driver.renewing:
                await anyio.sleep(0)
            await anyio.wait_all_tasks_blocked()
            assert bench.renewed == []
            may_end.set()
            bench.may_renew.set()
            while not bench.renewed:
                await anyio.sleep(0)
        assert seen == [True]


async def test_a_stop_waits_until_what_was_begun_is_done() -> None:
    async with Bench() as bench:
        old = await bench.dissolve()
        bench.driver.stop()
        await anyio.wait_all_tasks_blocked()
        assert not bench.driver.ended.is_set()
        bench.may_renew.set()
    assert bench.driver.ended.is_set()
    assert bench.driver.failure is None
    assert bench.driver.engine is not old  # type: ignore[comparison-overlap]


async def test_what_cannot_be_set_aside_stops_the_server() -> None:
    async with Bench() as bench:

        async def refuse(dissolved: Dissolved) -> None:
            bench.renewed.append(dissolved)
            raise StorageError("the disk is full")

        bench.driver._renew = refuse  # type: ignore[assignment]
        await bench.dissolve()
        with anyio.fail_after(DEADLINE_S), pytest.raises(StorageError, match="the disk is full"):
            await bench.driver.wait_until(lambda: False)


async def test_what_is_said_last_is_still_told() -> None:
    async with Bench() as bench:
        await bench.until("turn")
        bench.engine.next_turn = {"lines": [Tell("info", "good-bye")]}
    assert Tell("info", "good-bye") in bench.heard
    warnings = [event.text for event in bench.heard if isinstance(event, Tell)]
    assert any("does not hear announcements any more" in text for text in warnings)


FULL = StorageError("the disk is full")
FULL.__cause__ = OSError(28, "No space left on device")
CLOSED = StorageError("the store is closed, or failed before")
BUG = ZeroDivisionError()


@pytest.mark.parametrize(
    ("group", "cause"),
    [
        ([FULL], FULL),
        ([FULL, CLOSED], FULL),
        ([CLOSED, FULL], FULL),
        ([ExceptionGroup("inner", [FULL, CLOSED]), CLOSED], FULL),
        ([FULL, BUG], BUG),
        ([FULL, ExceptionGroup("inner", [CLOSED, BUG])], BUG),
    ],
)
async def test_of_several_tasks_that_fail_together_one_says_why(
    group: list[Exception], cause: Exception
) -> None:
    """A full disk fails the checkpoint and what is applied meanwhile: "unhandled errors in a
    TaskGroup" was all that the server said."""
    async with Bench() as bench:
        bench.driver._fail(ExceptionGroup("unhandled errors in a TaskGroup", group))
        assert bench.driver.failure is cause


async def test_an_unforeseen_failure_ends_the_loop_and_is_kept() -> None:
    async with Bench() as bench:
        await bench.until("turn")

        def fail(now: int) -> Turn:
            raise ZeroDivisionError

        bench.engine.end_turn = fail  # type: ignore[method-assign]
        bench.driver.wake()
        with anyio.fail_after(DEADLINE_S), pytest.raises(ZeroDivisionError):
            await bench.driver.wait_until(lambda: False)
    assert isinstance(bench.driver.failure, ZeroDivisionError)
