"""`InventoryClient` as an application uses it, against a real server in the same process."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from client_shop import Shop

from distinv.client import client as client_module
from distinv.client.client import InventoryClient
from distinv.discovery.api import DiscoveryContext
from distinv.errors import (
    ConfigError,
    DistinvError,
    IdempotencyKeyReused,
    InsufficientStock,
    InvalidQuantity,
    InvalidRequest,
    ItemNotEmpty,
    NoServer,
    OutcomeUnknown,
    PermissionDenied,
    PluginError,
    StaleVersion,
    Unavailable,
    UnknownItem,
)
from distinv.inventory import calls
from distinv.inventory.commands import parse_session_key
from distinv.model import Level, Line, Location, Receipt
from distinv.transport.api import Datagram, TransportContext
from distinv.transport.memory import MemoryDiscovery, MemoryTransport

pytestmark = pytest.mark.anyio


# --- where it looks ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, bytes(range(32))])
async def test_with_a_key_it_looks_beyond_its_own_machine(key: bytes | None) -> None:
    """A client once bound to every interface and announced itself on loopback only."""
    shop = Shop()
    asked: list[DiscoveryContext] = []

    async def look(context: DiscoveryContext) -> MemoryDiscovery:
        asked.append(context)
        return await shop.network.open_discovery(context)

    async with shop.client(key=key, discovery=look):
        pass
    (context,) = asked
    assert context.loopback_only == (key is None)
    assert context.network.host == ("127.0.0.1" if key is None else "0.0.0.0")


# --- every method -----------------------------------------------------------------------------


async def test_the_catalogue() -> None:
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        item = await inventory.put_item("tea", name="Green tea", unit="kg", scale=3)
        assert (item.sku, item.name, item.unit, item.scale, item.version) == (
            "tea",
            "Green tea",
            "kg",
            3,
            1,
        )
        assert await inventory.put_item("tea", name="Tea", if_version=1) != item
        with pytest.raises(StaleVersion) as stale:
            await inventory.put_item("tea", if_version=1)
        assert (stale.value.current, stale.value.seq) == (2, 3)
        assert (await inventory.get_item("tea")).name == "Tea"
        await inventory.put_item("coffee")
        assert [item.sku for item in await inventory.list_items()] == ["coffee", "tea"]
        assert [item.sku for item in await inventory.list_items("t", limit=1)] == ["tea"]
        await inventory.receive({"tea": 5})
        with pytest.raises(ItemNotEmpty):
            await inventory.delete_item("tea")
        assert (await inventory.delete_item("coffee")).levels == ()
        with pytest.raises(UnknownItem):
            await inventory.get_item("coffee")
        assert await inventory.put_location("shelf", sellable=False) == Location("shelf", False, 8)
        names = [location.name for location in await inventory.list_locations()]
        assert names == ["main", "shelf"]
        await inventory.delete_location("shelf")
        assert len(await inventory.list_locations()) == 1


async def test_the_stock() -> None:
    shop = Shop()
    async with shop.server(), shop.client(name="till 4") as inventory:
        for sku in ("a", "b"):
            await inventory.put_item(sku)
        await inventory.put_location("shelf")
        receipt = await inventory.receive({"a": 10, "b": 5}, reference="PO-7")
        assert receipt.seq == 4
        assert [(level.sku, level.on_hand) for level in receipt.levels] == [("a", 10), ("b", 5)]
        await inventory.ship([Line("a", 1), Line("a", 2)])
        with pytest.raises(InsufficientStock) as refusal:
            await inventory.purchase({"a": 8, "b": 6})
        assert [(each.sku, each.requested, each.available) for each in refusal.value.shortages] == [
            ("a", 8, 7),
            ("b", 6, 5),
        ]
        assert refusal.value.seq == 6
        await inventory.adjust("a", -1, reason="damaged")
        await inventory.adjust({"b": 2})
        await inventory.set_on_hand("b", 9, if_on_hand=7)
        await inventory.transfer({"b": 4}, "main", "shelf")
        receipt = await inventory.execute([calls.receive({"a": 1}), calls.ship({"b": 5})])
        assert receipt.seq == 11
        levels = await inventory.levels(["a", "b", ("b", "shelf")])
        assert [level.on_hand for level in levels] == [7, 0, 4]
        assert {level.as_of for level in levels} == {11}
        assert await inventory.level("b", "shelf") == Level("b", "shelf", 4, version=10)
        assert await inventory.available("b") == 4
        assert await inventory.available("b", locations=["main"]) == 0
        below = await inventory.list_levels(below=5)
        assert [(level.sku, level.location) for level in below] == [("b", "main"), ("b", "shelf")]
        entry = (await inventory.ledger(sku="a", newest_first=True, limit=1)).items[0]
        assert (entry.seq, entry.delta, entry.on_hand_after, entry.actor) == (11, 1, 7, "till 4")
        (line,) = await inventory.ledger(reference="PO-7", sku="a")
        assert line.kind == "receive"
        since = await inventory.ledger(since=datetime(2020, 1, 1, tzinfo=UTC), limit=3)
        assert len(since) == 3
        digest = await inventory.digest()
        assert (digest.seq, len(digest.value)) == (11, 16)


async def test_levels_are_paged_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE_ROWS", 2)
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        skus = [f"sku-{number}" for number in range(5)]
        for sku in skus:
            await inventory.put_item(sku)
        await inventory.receive(dict.fromkeys(skus, 3))
        assert [level.sku async for level in inventory.iter_levels()] == skus
        assert [level.sku async for level in inventory.iter_levels("sku-3")] == ["sku-3"]


async def test_the_cluster_describes_itself() -> None:
    shop = Shop()
    async with shop.server(server_name="north") as server, shop.client() as inventory:
        await inventory.put_item("a")
        status = await inventory.cluster()
        assert (status.name, status.leader, status.seq, status.sessions) == ("shop", "north", 1, 1)
        (only,) = status.servers
        assert (only.name, only.node, only.role, only.lag) == ("north", server.node_id, "leader", 0)
        assert only.address == server.address
        assert (await inventory.status())[0].state_digest == only.state_digest


# --- reads ------------------------------------------------------------------------------------


async def test_a_local_read_waits_for_what_its_caller_has_seen() -> None:
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")
        receipt = await inventory.receive({"a": 7})
        level = await inventory.level("a", read="local", min_seq=receipt.seq)
        assert (level.on_hand, level.as_of) == (7, receipt.seq)
        with pytest.raises(Unavailable):
            await inventory.level("a", read="local", min_seq=receipt.seq + 1, timeout=0.05)


# --- what is wrong is said before anything is sent --------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, "soon", True, float("nan")])
async def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    async with Shop().client() as inventory:
        with pytest.raises(InvalidRequest, match="timeout"):
            await inventory.receive({"a": 1}, timeout=timeout)
        with pytest.raises(InvalidRequest, match="timeout"):
            await inventory.level("a", timeout=timeout)


async def test_arguments_are_checked_at_once() -> None:
    async with Shop().client() as inventory:
        with pytest.raises(InvalidQuantity):
            await inventory.receive({"a": 1.5})  # type: ignore[dict-item]
        with pytest.raises(InvalidRequest, match="read"):
            await inventory.level("a", read="fast")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="min_seq"):
            await inventory.level("a", read="local", min_seq=-1)
        with pytest.raises(InvalidRequest):
            await inventory.resolve(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await inventory.receive({"a": 1}, colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "settings",
    [
        {"key": b"short"},
        {"key": "/nowhere/shop.key"},
        {"servers": ["10.0.0.5:99999"]},
        {"name": "\n"},
    ],
)
async def test_settings_are_checked_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        InventoryClient("shop", **settings)


async def test_unknown_plugins_are_named() -> None:
    with pytest.raises(PluginError, match="pigeon"):
        InventoryClient("shop", transport="pigeon")


async def test_a_server_elsewhere_needs_a_key() -> None:
    client = InventoryClient("shop", servers=["192.0.2.1:4747"])
    with pytest.raises(ConfigError, match="key"):
        async with client:
            pass


async def test_a_client_is_used_inside_its_context_and_entered_once() -> None:
    client = Shop().client()
    with pytest.raises(ConfigError, match="context"):
        await client.level("a")
    async with client:
        with pytest.raises(ConfigError, match="once"):
            await client.__aenter__()
    with pytest.raises(ConfigError, match="context"):
        await client.receive({"a": 1})


# --- keys -------------------------------------------------------------------------------------


async def test_another_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    (tmp_path / "key").write_bytes(bytes(32))
    async with shop.server(key=bytes(31) + b"k"):
        monkeypatch.setenv("DISTINV_KEY", str(tmp_path / "key"))
        async with shop.client() as inventory:
            with pytest.raises(PermissionDenied, match="another cluster key"):
                await inventory.level("a")
        monkeypatch.setenv("DISTINV_KEY", str(tmp_path / "nothing"))
        async with shop.client(key=bytes(31) + b"k") as inventory:
            await inventory.put_item("a")


async def test_what_a_person_should_know_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    async with shop.server(key=bytes(31) + b"k"), shop.client(key=bytes(32)) as inventory:
        with caplog.at_level(logging.WARNING, "distinv.client"), pytest.raises(PermissionDenied):
            await inventory.level("a")
    assert any("key" in message for message in caplog.messages)


# --- nobody there -----------------------------------------------------------------------------


async def test_entering_waits_for_nobody() -> None:
    shop = Shop()
    async with shop.client(timeout=0.02) as inventory:
        with pytest.raises(NoServer, match="shop"):
            await inventory.receive({"a": 1})
        with pytest.raises(NoServer):
            await inventory.level("a")
        with pytest.raises(NoServer):
            await inventory.cluster()


async def test_a_server_may_come_after_the_call() -> None:
    shop = Shop()
    async with shop.client() as inventory, anyio.create_task_group() as group:
        items = []

        async def put() -> None:
            items.append(await inventory.put_item("a"))

        group.start_soon(put)
        await anyio.lowlevel.checkpoint()
        async with shop.server():
            while not items:
                await anyio.lowlevel.checkpoint()
            assert items[0].sku == "a"


# --- concurrency, cancellation, leaving -------------------------------------------------------


async def test_many_callers_share_a_client() -> None:
    shop = Shop()
    receipts: list[tuple[int, int, Receipt]] = []
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")

        async def work(caller: int) -> None:
            for number in range(5):
                receipts.append((caller, number, await inventory.receive({"a": 1})))

        async with anyio.create_task_group() as group:
            for caller in range(100):
                group.start_soon(work, caller)
        seqs = sorted(receipt.seq for _, _, receipt in receipts)
        assert seqs == list(range(2, 502))
        assert (await inventory.level("a")).on_hand == 500


async def test_clients_of_one_seed_do_not_share_a_session() -> None:
    """They would take each other's numbers for their own, and each other's receipts."""
    shop = Shop()
    async with shop.server(), shop.client(seed=7) as one, shop.client(seed=7) as other:
        await one.put_item("a")
        await one.receive({"a": 5})
        await other.put_item("b")
        assert [level.sku for level in (await other.receive({"b": 6})).levels] == ["b"]


async def test_commands_take_effect_in_the_order_of_the_calls() -> None:
    shop = Shop()
    seqs: list[int] = []
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")

        async def receive(number: int) -> None:
            receipt = await inventory.receive({"a": 1}, reference=str(number))
            seqs.append(receipt.seq)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(receive, number)
                await anyio.lowlevel.checkpoint()
        order = [entry.reference for entry in await inventory.ledger()]
        assert order == [str(number) for number in range(20)]


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    shop = Shop()
    async with shop.server():
        refused = None
        try:
            async with shop.client() as inventory:
                await inventory.put_item("a")
                await inventory.ship({"a": 1})
        except InsufficientStock as error:
            refused = error
        assert refused is not None
        with pytest.raises(ZeroDivisionError):
            async with shop.client():
                raise ZeroDivisionError
    assert all(gate.left for gate in shop.gates)


async def test_a_cancelled_call_detaches_and_the_client_goes_on() -> None:
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")
        shop.gate.closed = True
        with anyio.move_on_after(0.01) as scope:
            await inventory.receive({"a": 1})
        assert scope.cancelled_caught
        shop.gate.closed = False
        receipt = await inventory.receive({"a": 10})
        assert receipt.levels[0].on_hand in (10, 11), "once at most, and before this one"
        assert (await inventory.level("a")).on_hand == receipt.levels[0].on_hand


async def test_a_cancelled_body_leaves_nothing_behind() -> None:
    shop = Shop()
    async with shop.server():
        with anyio.move_on_after(0.02) as scope:
            async with shop.client() as inventory:
                await inventory.put_item("a")
                shop.gate.closed = True
                await inventory.receive({"a": 1})
        assert scope.cancelled_caught
        assert shop.gate.left


async def test_leaving_ends_the_calls_of_other_tasks() -> None:
    shop = Shop()
    ends: list[DistinvError] = []
    async with shop.server(), anyio.create_task_group() as group, shop.client() as inventory:
        await inventory.put_item("a")
        shop.gate.closed = True

        async def call() -> None:
            with pytest.raises(DistinvError) as caught:
                await inventory.receive({"a": 1})
            ends.append(caught.value)

        async def look() -> None:
            with pytest.raises(Unavailable):
                await inventory.level("a")

        group.start_soon(call)
        group.start_soon(look)
        await anyio.wait_all_tasks_blocked()
    assert isinstance(ends[0], OutcomeUnknown)
    assert parse_session_key(str(ends[0].idempotency_key)) is not None


class BrokenTransport(MemoryTransport):
    async def receive(self) -> list[Datagram]:
        raise RuntimeError("the cable burns")


async def test_a_broken_transport_ends_the_calls_and_not_the_application() -> None:
    shop = Shop()

    async def open_broken(context: TransportContext) -> BrokenTransport:
        return BrokenTransport(shop.network, ("10.9.9.9", 9), context.network)

    shop.network._transports["10.9.9.9", 9] = object()  # type: ignore[assignment]
    async with shop.client(transport=open_broken) as inventory:
        with pytest.raises(DistinvError):
            await inventory.level("a")
        with pytest.raises(PluginError, match="the cable burns"):
            await inventory.level("a")
        await anyio.lowlevel.checkpoint()


# --- what became of it ------------------------------------------------------------------------


async def lose_a_call(shop: Shop, inventory: InventoryClient, **options: Any) -> str:
    """A command that leaves and is never heard of again, until the gate opens."""
    with anyio.fail_after(30):
        while True:
            shop.gate.closed = True
            with pytest.raises((OutcomeUnknown, Unavailable)) as ended:
                await inventory.receive({"a": 1}, timeout=0.02, **options)
            shop.gate.closed = False
            if isinstance(ended.value, OutcomeUnknown):
                assert ended.value.idempotency_key is not None
                return ended.value.idempotency_key
            # This process stood still, and the command did not even leave: the same again.


async def test_an_unknown_outcome_is_resolved_by_the_same_client() -> None:
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")
        await inventory.receive({"a": 10})
        key = await lose_a_call(shop, inventory)
        outcome = await inventory.resolve(key)
        on_hand = (await inventory.level("a")).on_hand
        assert on_hand == (10 if outcome is None else 11)
        assert await inventory.resolve(key) == outcome


async def test_an_unknown_outcome_is_resolved_by_a_later_client() -> None:
    shop = Shop()
    async with shop.server():
        async with shop.client() as inventory:
            await inventory.put_item("a")
            key = await lose_a_call(shop, inventory)
            shop.gate.closed = True
        async with shop.client() as inventory:
            assert await inventory.resolve(key) is None
            assert await inventory.resolve(key) is None
            assert (await inventory.level("a")).on_hand == 0


async def test_receipts_and_refusals_are_resolved_as_values() -> None:
    shop = Shop()
    async with shop.server(), shop.client() as inventory:
        await inventory.put_item("a")
        receipt = await inventory.receive({"a": 3})
        assert receipt.idempotency_key is not None
        async with shop.client() as other:
            assert await other.resolve(receipt.idempotency_key) == receipt
        with pytest.raises(InsufficientStock) as refused:
            await inventory.ship({"a": 4})
        session, number = parse_session_key(receipt.idempotency_key) or (0, 0)
        key = f"s{session:016x}:{number + 1}"
        async with shop.client() as other:
            refusal = await other.resolve(key)
        assert isinstance(refusal, InsufficientStock)
        assert refusal.shortages == refused.value.shortages
        await inventory.receive({"a": 1})
        with pytest.raises(OutcomeUnknown):
            await inventory.resolve(receipt.idempotency_key)


async def test_the_callers_own_key_protects_across_clients() -> None:
    shop = Shop()
    async with shop.server():
        async with shop.client() as inventory:
            await inventory.put_item("a")
            key = await lose_a_call(shop, inventory, idempotency_key="order-1")
            assert key == "order-1"
        async with shop.client() as inventory:
            before = await inventory.resolve(key)
            receipt = await inventory.receive({"a": 1}, idempotency_key="order-1")
            assert receipt.replayed == (before is not None)
            assert receipt.idempotency_key == "order-1"
            again = await inventory.receive({"a": 1}, idempotency_key="order-1")
            assert (again.seq, again.replayed) == (receipt.seq, True)
            resolved = await inventory.resolve("order-1")
            assert isinstance(resolved, Receipt)
            assert resolved.seq == receipt.seq
            with pytest.raises(IdempotencyKeyReused):
                await inventory.receive({"a": 2}, idempotency_key="order-1")
            assert await inventory.resolve("order-2") is None
            assert (await inventory.level("a")).on_hand == 1
