"""Three servers and their clients in one event loop, over datagrams in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest
from attrs import evolve
from cluster_kit import (
    DEADLINE_S,
    MemoryCluster,
    followers_of,
    leader_of,
    running,
    with_timing,
)

from distinv import (
    ConfigError,
    InsufficientStock,
    InventoryClient,
    NoLeader,
    NoServer,
    StorageError,
    hookimpl,
)
from distinv.core.events import InvariantBroken, LeaderChanged, Tell
from distinv.plugins.observer import ObserverContext
from distinv.runtime.observers import Progress
from distinv.storage.api import Record, Storage, StorageContext
from distinv.storage.memory import MemoryStorage
from distinv.testing.cluster import quick
from distinv.transport.api import Datagram, TransportContext
from distinv.transport.memory import MemoryTransport
from distinv.wire.messages import StatusReply

pytestmark = pytest.mark.anyio


async def converged(client: InventoryClient, count: int) -> list[StatusReply]:
    """Ask until `count` servers are at the same log index."""
    with anyio.fail_after(DEADLINE_S):
        while True:
            replies = await client.status()
            if (
                len(replies) == count
                and len({(reply.applied, reply.seq) for reply in replies}) == 1
            ):
                return list(replies)


async def test_three_servers_form_a_cluster_and_serve(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    async with running(*(shop.server(number) for number in range(3))) as servers:
        assert len({server.leader for server in servers}) == 1
        assert leader_of(servers).leader == leader_of(servers).node_id
        async with shop.client() as inventory:
            await inventory.put_item("85123A", name="Hanging heart holder")
            await inventory.receive({"85123A": 10}, reference="PO-7")
            receipt = await inventory.ship({"85123A": 4}, reference="536365")
            with pytest.raises(InsufficientStock) as refusal:
                await inventory.ship({"85123A": 7})
            assert (receipt.seq, refusal.value.seq) == (3, 4)
            level = await inventory.level("85123A")
            assert (level.on_hand, level.available) == (6, 6)
            replies = await converged(inventory, 3)
            assert {(reply.seq, reply.digest) for reply in replies} == {
                (4, (await inventory.digest()).value)
            }
            assert len({reply.state_digest for reply in replies}) == 1


async def test_leaving_hands_leadership_over_and_service_goes_on(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    async with running(*(shop.server(number) for number in range(3))) as servers:
        old = leader_of(servers)
        async with shop.client() as inventory:
            await inventory.put_item("a")
            await old.stop()
            assert old.stopping
            await inventory.receive({"a": 5})
            (new,) = {server.leader for server in followers_of(servers) if server is not old}
            assert new != old.node_id
            assert (await inventory.level("a")).on_hand == 5


async def test_a_server_returns_with_its_identity_and_catches_up(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    first, second, client = shop.server(0), shop.server(1), shop.client()
    async with first, second, client as inventory:
        async with running(shop.server(2)) as (third,):
            node = third.node_id
            await inventory.put_item("a")
        await inventory.receive({"a": 5})
        async with running(shop.server(2)) as (third,):
            assert third.node_id == node
            replies = await converged(inventory, 3)
            assert {reply.digest for reply in replies} == {(await inventory.digest()).value}


async def test_the_store_goes_on_where_it_was(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)), shop.client() as inventory:
        await inventory.put_item("a")
        await inventory.receive({"a": 5})
    async with running(shop.server(0)) as (server,), shop.client() as inventory:
        assert server.status().seq == 2
        assert (await inventory.level("a")).on_hand == 5


async def test_leadership_is_transferred_to_whom_it_is_asked_for(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path)
    async with running(*(shop.server(number) for number in range(3))) as servers:
        leader = leader_of(servers)
        target = next(followers_of(servers))
        with pytest.raises(NoLeader):
            await target.transfer()
        with pytest.raises(ConfigError, match="no other voter of this cluster; choose one of: "):
            await leader.transfer("node-9")
        assert await leader.transfer(target.server_name)
        await target.ready()
        assert target.is_leader
        assert not leader.is_leader


async def test_a_cluster_is_entered_once(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    server = shop.server(0)
    with pytest.raises(ConfigError, match="enter the Cluster first"):
        await server.ready()
    async with running(server):
        assert server.address[0] == "127.0.0.1"
        assert server.name == "shop"
        assert server.server_name == "node-0"
    with pytest.raises(ConfigError, match="entered once"):
        await server.__aenter__()
    assert server.leader is None
    with pytest.raises(NoLeader):
        await server.transfer()
    with pytest.raises(StorageError, match="has been stopped"):
        await server.ready()


async def test_serve_returns_when_the_server_is_stopped(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (server,), anyio.create_task_group() as group:
        group.start_soon(server.serve)
        await server.stop()


# --- failures ---------------------------------------------------------------------------------


class FailingStorage:
    """A disk that fails when it is told to."""

    def __init__(self, context: StorageContext) -> None:
        self._inner = MemoryStorage()
        self.failing = False
        self.recover, self.read, self.close = (
            self._inner.recover,
            self._inner.read,
            self._inner.close,
        )

    def commit(self, records: Sequence[Record]) -> None:
        if self.failing:
            raise StorageError("the disk is full")
        self._inner.commit(records)


async def test_a_failing_disk_stops_the_server_and_nobody_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disks: list[FailingStorage] = []

    def open_disk(context: StorageContext) -> Storage:
        disks.append(FailingStorage(context))
        return disks[-1]

    shop = MemoryCluster(tmp_path)
    async with running(
        shop.server(0), shop.server(1), shop.server(2, storage=open_disk)
    ) as servers:
        await leader_of(servers).transfer("node-2") if not servers[2].is_leader else None
        await servers[2].ready()
        disks[0].failing = True
        async with shop.client() as inventory:
            await inventory.put_item("a")
            with pytest.raises(StorageError, match="the disk is full"):
                await servers[2].serve()
            await inventory.receive({"a": 1})
        assert not servers[2].is_leader
    assert any(record.getMessage() == "node-2: the disk is full" for record in caplog.records)


class StallingStorage(FailingStorage):
    """A disk that hangs while it is told to, on the storage thread."""

    def __init__(self, context: StorageContext) -> None:
        super().__init__(context)
        self.works = Event()
        self.works.set()

    def commit(self, records: Sequence[Record]) -> None:
        assert self.works.wait(DEADLINE_S)
        super().commit(records)


async def test_a_leader_whose_disk_hangs_lets_others_lead(tmp_path: Path) -> None:
    disks: dict[str, StallingStorage] = {}

    def open_disk(context: StorageContext) -> Storage:
        disks[context.data_dir.name] = StallingStorage(context)
        return disks[context.data_dir.name]

    config = with_timing(quick(), disk_stall_us=100_000)
    shop = MemoryCluster(tmp_path, storage=open_disk, config=config)
    async with running(*(shop.server(number) for number in range(3))) as servers:
        slow = leader_of(servers)
        async with shop.client() as inventory:
            await inventory.put_item("a")
            disks[slow.server_name].works.clear()
            try:
                await inventory.receive({"a": 5}, timeout=DEADLINE_S)
                assert not slow.is_leader
            finally:
                disks[slow.server_name].works.set()
            replies = await converged(inventory, 3)
            assert len({reply.state_digest for reply in replies}) == 1


async def test_a_failure_that_nobody_was_told_of_is_raised_on_leaving(tmp_path: Path) -> None:
    disks: list[FailingStorage] = []

    def open_disk(context: StorageContext) -> Storage:
        disks.append(FailingStorage(context))
        return disks[-1]

    shop = MemoryCluster(tmp_path, expect=1, storage=open_disk)

    async def leave_after_the_failure() -> None:
        async with running(shop.server(0)) as (server,):
            disks[0].failing = True
            async with shop.client() as inventory:
                with pytest.raises(NoServer):  # ten times the silence by which it is judged
                    await inventory.put_item("a", timeout=3)
            assert not server.is_leader

    with pytest.raises(StorageError, match="the disk is full"):
        await leave_after_the_failure()


async def test_a_broken_rule_stops_the_server_with_one_clear_line(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (server,):

        def break_a_rule(now: int) -> None:
            raise InvariantBroken("two leaders")

        server._engine.on_deadline = break_a_rule  # type: ignore[method-assign]
        with pytest.raises(StorageError, match=r"its own rules were broken \(two leaders\)"):
            await server.serve()


# --- what is heard ----------------------------------------------------------------------------


class Listener:
    def __init__(self, context: ObserverContext) -> None:
        self.context = context
        self.events: list[object] = []

    def on_events(self, events: Sequence[object]) -> None:
        self.events += events


class Raiser:
    def __init__(self, context: ObserverContext) -> None:
        self.calls = 0

    def on_events(self, events: Sequence[object]) -> None:
        self.calls += 1
        raise RuntimeError("no")


class Watching:
    """A plugin with two observers."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def _make(self, kind: Callable[[ObserverContext], Any]) -> Callable[[ObserverContext], Any]:
        def make(context: ObserverContext) -> Any:
            self.made.append(kind(context))
            return self.made[-1]

        return make

    @hookimpl
    def distinv_observers(self) -> dict[str, Any]:
        return {"listener": self._make(Listener), "raiser": self._make(Raiser)}


async def test_observers_hear_what_happens_and_cannot_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Watching()
    shop = MemoryCluster(tmp_path, expect=1, plugins=[plugin])
    with caplog.at_level(logging.INFO, "distinv"):
        async with running(shop.server(0)) as (server,), shop.client() as inventory:
            await inventory.put_item("a")
    listener, raiser = plugin.made
    assert listener.context == ObserverContext("shop", "node-0")
    kinds = {type(event) for event in listener.events}
    assert {Tell, LeaderChanged, Progress} <= kinds
    changes = [event for event in listener.events if isinstance(event, LeaderChanged)]
    assert changes[-1].leader == server.node_id
    assert raiser.calls == 1
    messages = [record.getMessage() for record in caplog.records]
    assert any("node-0: serving clients in term 1" in line for line in messages)
    assert sum("the observer raiser failed" in line for line in messages) == 1


class FloodingTransport(MemoryTransport):
    """Everything it receives comes a thousand times at once."""

    async def receive(self) -> list[Datagram]:
        return [datagram for datagram in await super().receive() for _ in range(1_000)]


async def test_a_flood_is_dropped_and_counted(tmp_path: Path) -> None:
    config = quick()
    config = evolve(config, limits=evolve(config.limits, inbox_datagrams=100))
    shop = MemoryCluster(tmp_path, expect=1, config=config)

    async def flooding(context: TransportContext) -> FloodingTransport:
        made = await shop.network.open_transport(context)
        made.__class__ = FloodingTransport
        assert isinstance(made, FloodingTransport)
        return made

    async with running(shop.server(0, transport=flooding)) as (server,), shop.client() as inventory:
        await inventory.put_item("a")
        counters = server.counters()
        assert counters["dropped: inbox full"] > 0
        assert counters["received_datagrams"] > 0
        assert (await inventory.get_item("a")).version == 1


async def test_cancelling_hands_leadership_over_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = MemoryCluster(tmp_path)
    with caplog.at_level(logging.INFO, "distinv"):
        async with shop.server(0) as first, shop.server(1) as second:
            with anyio.CancelScope() as scope:
                async with shop.server(2) as third:
                    with anyio.fail_after(DEADLINE_S):
                        for server in (first, second, third):
                            await server.ready()
                        if not third.is_leader:
                            await leader_of([first, second]).transfer("node-2")
                            await third.ready()
                    scope.cancel()
                    await third.serve()
            assert scope.cancelled_caught
            assert third.leader is None
            assert {first.leader, second.leader} & {first.node_id, second.node_id}
    messages = [record.getMessage() for record in caplog.records]
    assert "node-2: has handed leadership over and stops" in messages
