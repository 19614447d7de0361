"""The driver by itself, with an engine that only takes notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import anyio
import pytest
from attrs import define, evolve, field
from cluster_kit import DEADLINE_S

from distinv import Config
from distinv.core.events import Tell, Write
from distinv.plugins.observer import ObserverContext
from distinv.runtime.driver import Driver, monotonic_us
from distinv.runtime.observers import Audience
from distinv.server.engine import Turn
from distinv.server.errands import Errand
from distinv.storage.api import PromiseRecord, Record
from distinv.testing.cluster import quick
from distinv.transport.api import Address, Datagram

pytestmark = pytest.mark.anyio

PEER = ("127.0.0.1", 4747)
FAR_US = 3_600_000_000


@define
class Role:
    handing_over: bool = False


@define
class StubNode:
    clock_offset_us: int = 0
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

    def flush(self) -> None:
        self.flushes += 1


class StubEngine:
    """Answers every datagram with itself; applies what it is told is committed."""

    def __init__(self) -> None:
        self.node = StubNode()
        self.machine = StubMachine()
        self.notes: list[Any] = []
        self.due = monotonic_us() + FAR_US
        self.to_apply = 0
        self.next_turn: dict[str, Any] = {}
        self._out: list[tuple[Address, bytes]] = []

    def receive(self, data: bytes, address: Address, now: int) -> None:
        self.notes.append(("received", data))
        self._out.append((address, data))

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

    def __init__(self, config: Config | None = None) -> None:
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
        )

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


async def test_what_is_said_last_is_still_told() -> None:
    async with Bench() as bench:
        await bench.until("turn")
        bench.engine.next_turn = {"lines": [Tell("info", "good-bye")]}
    assert Tell("info", "good-bye") in bench.heard
    warnings = [event.text for event in bench.heard if isinstance(event, Tell)]
    assert any("does not hear announcements any more" in text for text in warnings)


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
