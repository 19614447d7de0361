"""Clusters in memory, the clock that jumps, and the fixtures, as an application uses them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from distinv import (
    InsufficientStock,
    InventoryClient,
    NoServer,
    Receipt,
    StorageError,
    Unavailable,
    testing,
)
from distinv.config import FaultSettings
from distinv.runtime import driver
from distinv.testing import MemoryCluster, jumping_clock, pytest_plugin
from distinv.testing.cluster import CutNetwork, quick
from distinv.transport.api import TransportContext

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "testing.md"

pytestmark = pytest.mark.anyio

distinv_backend = pytest_plugin.distinv_backend
distinv_network = pytest_plugin.distinv_network
distinv_cluster = pytest_plugin.distinv_cluster


@pytest.fixture
def anyio_backend(distinv_backend: Any) -> Any:
    return distinv_backend


class Stopwatch:
    """Prints how long something took, in the world and in the loop; nothing depends on it."""

    def __init__(self) -> None:
        self.real_s, self.loop_s = time.perf_counter(), anyio.current_time()

    def say(self, what: str) -> None:
        real_ms = (time.perf_counter() - self.real_s) * 1_000
        loop_ms = (anyio.current_time() - self.loop_s) * 1_000
        print(f"{what}: {real_ms:.0f} ms, in which {loop_ms:.0f} ms passed in the loop")


async def check_out(inventory: InventoryClient, order: str) -> Receipt:
    return await inventory.ship({"MUG": 1}, reference=order, idempotency_key=order)


async def test_what_does_my_checkout_do_when_the_leader_dies_now(
    distinv_cluster: MemoryCluster,
) -> None:
    async with distinv_cluster.client("shop-1") as inventory:
        await inventory.put_item("MUG")
        await inventory.receive({"MUG": 10})
        leader = await distinv_cluster.leader()
        stopwatch = Stopwatch()
        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(check_out, inventory, f"order {number}")
            tasks.start_soon(distinv_cluster.crash, leader)
        again = await check_out(inventory, "order 4")
        stopwatch.say("five checkouts and a dead leader")
        assert not leader.running
        assert again.replayed
        assert (await inventory.level("MUG")).on_hand == 5
        await distinv_cluster.start(leader)
        await distinv_cluster.converged()
        assert (await inventory.digest()).seq == 7


async def test_all_servers_crash_and_nothing_is_forgotten(distinv_cluster: MemoryCluster) -> None:
    async with distinv_cluster.client() as inventory:
        await inventory.put_item("MUG")
        await inventory.receive({"MUG": 10})
        await distinv_cluster.converged()
        before = await inventory.digest()
        nodes = [server.cluster.node_id for server in distinv_cluster.servers]
        for server in distinv_cluster.servers:
            await distinv_cluster.crash(server)
        assert not any(server.is_leader for server in distinv_cluster.servers)
        with pytest.raises(NoServer):  # ten times the silence by which it is judged
            await inventory.get_item("MUG", timeout=3)
        await distinv_cluster.start(*distinv_cluster.servers)
        await distinv_cluster.converged()
        assert await inventory.digest() == before
        assert [server.cluster.node_id for server in distinv_cluster.servers] == nodes
        with pytest.raises(InsufficientStock):
            await inventory.ship({"MUG": 11})


async def test_a_leader_that_is_cut_off_is_not_the_leader(distinv_cluster: MemoryCluster) -> None:
    async with distinv_cluster.client() as inventory:
        await inventory.put_item("MUG")
        old = await distinv_cluster.leader()
        distinv_cluster.cut(old)
        await inventory.receive({"MUG": 10})
        new = await distinv_cluster.leader()
        assert new is not old
        assert old.running
        distinv_cluster.heal()
        await distinv_cluster.converged()
        assert old.follows == new.cluster.node_id


async def test_those_who_are_cut_off_together_hear_each_other(
    distinv_cluster: MemoryCluster,
) -> None:
    one, two, three = distinv_cluster.servers
    await distinv_cluster.leader()
    distinv_cluster.cut(one, two)
    leader = await distinv_cluster.leader()
    assert leader in (one, two)
    async with distinv_cluster.client() as inventory:  # on the third one's side
        with pytest.raises(Unavailable):
            await inventory.put_item("MUG", timeout=0.5)
        distinv_cluster.heal()
        await inventory.put_item("MUG")
    assert three.running


async def test_stopping_hands_over_and_restarting_goes_on(distinv_cluster: MemoryCluster) -> None:
    leader = await distinv_cluster.leader()
    await distinv_cluster.stop(leader)
    assert not leader.running
    assert repr(leader) == f"<{leader.name} down>"
    with pytest.raises(AssertionError, match="is not running"):
        leader.cluster  # noqa: B018
    assert leader not in await distinv_cluster.followers()
    for server in distinv_cluster.servers:
        await distinv_cluster.restart(server)
    assert len(await distinv_cluster.followers()) == 2


async def test_a_lossy_network_and_another_election() -> None:
    faults = FaultSettings(loss=0.1, duplicate=0.1, delay=0.2, seed=5)
    stopwatch = Stopwatch()
    async with MemoryCluster(5, election="ring", faults=faults, key=bytes(range(32))) as cluster:
        async with cluster.client() as inventory:
            await inventory.put_item("MUG")
            await cluster.crash(await cluster.leader())
            await cluster.crash(await cluster.leader())
            await inventory.receive({"MUG": 3})
            assert (await inventory.level("MUG")).on_hand == 3
        await cluster.converged()
    stopwatch.say("five servers, two crashes, a bad network")


async def test_a_server_that_fails_does_not_fail_the_test(distinv_cluster: MemoryCluster) -> None:
    victim = (await distinv_cluster.followers())[0]
    victim._storage.fail("the disk is full")
    async with distinv_cluster.client() as inventory:
        await inventory.put_item("MUG")
        while victim.running:
            await anyio.sleep(0.01)
        assert isinstance(victim.failure, StorageError)
        await inventory.receive({"MUG": 1})


async def test_a_cluster_that_never_is_says_what_was_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distinv.testing.cluster.PATIENCE_S", 1)
    cluster = MemoryCluster(2, expect=3)
    with pytest.raises(AssertionError, match=r"not within 1 s: the servers are ready; .*server-0"):
        await cluster.__aenter__()


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    cluster = MemoryCluster(2)
    with pytest.raises(ZeroDivisionError):
        async with cluster:
            1 / 0  # noqa: B018
    assert not any(server.running for server in cluster.servers)


async def test_nothing_runs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr("anyio.to_thread.run_sync", refuse)
    monkeypatch.setattr("distinv.runtime.driver.StorageThread", refuse)
    async with MemoryCluster(3) as cluster, cluster.client() as inventory:
        await inventory.put_item("MUG")
        assert (await inventory.digest()).seq == 1
        await cluster.restart(await cluster.leader())
        await inventory.receive({"MUG": 1})


async def test_the_clock_is_the_machines_again_afterwards() -> None:
    before = driver.monotonic_us
    async with MemoryCluster(1):
        inside = driver.monotonic_us
        async with MemoryCluster(1, name="other"):
            assert driver.monotonic_us is inside
        assert driver.monotonic_us is inside
        assert inside is not before
        assert abs(inside() - anyio.current_time() * 1_000_000) < 1_000_000
    assert driver.monotonic_us is before


async def test_everybody_lives_by_that_clock() -> None:
    """A module that was left out waited for ever, where the loop's clock is not the machine's."""
    async with MemoryCluster(1), MemoryCluster(1, name="other").client():
        readers = {
            name: vars(module)["monotonic_us"]
            for name, module in sys.modules.items()
            if name.startswith("distinv.")
            and not name.startswith("distinv.cli.")  # it has a process, and a loop, of its own
            and "monotonic_us" in vars(module)
        }
        assert len(readers) > 3
        assert set(readers.values()) == {driver.monotonic_us}


@pytest.mark.parametrize("anyio_backend", [pytest.param(jumping_clock(), id="jumping-clock")])
async def test_ten_minutes_without_servers_pass_at_once(anyio_backend: Any) -> None:
    stopwatch = Stopwatch()
    async with MemoryCluster(3) as cluster, cluster.client() as inventory:
        await inventory.put_item("MUG")
        for server in cluster.servers:
            await cluster.crash(server)
        began = anyio.current_time()
        with pytest.raises(NoServer):
            await inventory.get_item("MUG", timeout=600)
        assert 600 <= anyio.current_time() - began < 601
        await cluster.start(*cluster.servers)
        assert (await inventory.get_item("MUG")).sku == "MUG"
    stopwatch.say("ten minutes without servers")


async def test_the_network_loses_what_crosses_a_cut() -> None:
    network = CutNetwork()
    one, two, three = [
        await network.open_transport(TransportContext(quick().network, server=True))
        for _ in range(3)
    ]
    network.cut(one.address, two.address)
    one.send([(two.address, b"together"), (three.address, b"apart")])
    three.send([(one.address, b"apart")])
    assert network.lost == 2
    assert await two.receive() == [(b"together", one.address)]
    network.cut(three.address)
    network.heal(one.address, two.address)
    three.send([(one.address, b"apart")])
    network.heal()
    three.send([(one.address, b"together")])
    assert await one.receive() == [(b"together", three.address)]
    assert network.lost == 3
    for transport in (one, two, three):
        await transport.aclose()


# --- as it is installed -----------------------------------------------------------------------


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a project of its own, that knows distinv as an installed package."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_documented_tests_pass_for_those_who_copy_them(tmp_path: Path) -> None:
    """Those of applications with all three clocks; the suites of plugins are tested elsewhere."""
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.M | re.S)
    (example,) = (block for block in blocks if "distinv_cluster" in block)
    (tmp_path / "test_shop.py").write_text(example, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    ran = run_pytest(tmp_path, "-v", *loading_the_plugin())
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(" PASSED ") == 6
    assert "[jumping-clock]" in ran.stdout


def test_the_fixtures_are_listed_with_what_they_are(tmp_path: Path) -> None:
    ran = run_pytest(tmp_path, "--fixtures", "-q", *loading_the_plugin())
    for name in ("distinv_backend", "distinv_cluster", "distinv_network"):
        assert name in ran.stdout
    assert "Three servers that serve" in ran.stdout


def loading_the_plugin() -> list[str]:
    """By its entry point where distinv is installed, else by hand."""
    from importlib.metadata import entry_points

    if any(entry.name == "distinv" for entry in entry_points(group="pytest11")):
        return []
    return ["-p", "distinv.testing.pytest_plugin"]


def test_the_entry_point_leads_to_the_plugin() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    (section,) = re.findall(
        r"^\[project\.entry-points\.pytest11\]\n(.*?)\n\n", project, re.M | re.S
    )
    assert section == f'distinv = "{pytest_plugin.__name__}"'


@pytest.mark.parametrize("module", ["distinv.testing", "distinv.testing.pytest_plugin"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    loaded = set(json.loads(ran.stdout))
    ours = {name for name in loaded if name.startswith("distinv")}
    assert ours <= {"distinv", "distinv.testing", "distinv.testing.pytest_plugin"}
    assert not loaded & {"anyio", "trio", "attrs", "msgspec", "sqlite3"}


def test_every_public_name_is_there_and_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    for name in testing.__all__:
        assert getattr(testing, name) is not None
        assert name in dir(testing)
        assert re.search(rf"\b{name}\b", text), f"{name} is not in docs/testing.md"
    assert testing.__all__ == sorted(set(testing.__all__))
    assert sorted(testing._HOMES) == sorted(testing.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Suite'"):
        testing.Suite  # noqa: B018
