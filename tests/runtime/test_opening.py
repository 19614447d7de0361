"""What keeps a server from starting: one clear line each, and nothing is touched."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import evolve
from cluster_kit import DEADLINE_S, MemoryCluster, config_of_its_own, free_port, running

from distinv import (
    Cluster,
    ConfigError,
    CorruptLog,
    DistinvError,
    PluginError,
    StorageError,
    hookimpl,
    new_key,
)

pytestmark = pytest.mark.anyio

about_files = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""What is tested is what lies on the disk: one event loop is enough."""


async def refusal_of(server: Cluster) -> DistinvError:
    with anyio.fail_after(DEADLINE_S), pytest.raises(DistinvError) as refusal:
        await server.__aenter__()
    text = str(refusal.value)
    assert text
    assert "\n" not in text
    return refusal.value


def on_loopback(directory: Path, **settings: Any) -> Cluster:
    config = config_of_its_own()
    return Cluster("shop", **{"data_dir": directory / "node", "config": config, **settings})


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"election": "coin"}, PluginError, "there is no election 'coin'; choose one of: bully"),
        ({"transport": "tcp"}, PluginError, "choose one of: faulty, udp"),
        ({"storage": "tape"}, PluginError, "choose one of: journal, memory"),
        ({"expect": 0}, ConfigError, "a cluster has 1 to 64 servers"),
        ({"server_name": "a\nb"}, ConfigError, "printable text"),
        ({"server_name": "é" * 51}, ConfigError, "at most 100 bytes"),
        ({"servers": ["10.0.0.1:x"]}, ConfigError, "give HOST:PORT"),
        ({"key": b"short"}, ConfigError, "a cluster key has 32 bytes, not 5"),
        ({"key": "/nowhere/key"}, ConfigError, "cannot read the cluster key file /nowhere/key"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    settings: dict[str, Any], error: type[DistinvError], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        on_loopback(tmp_path, **settings)
    assert not (tmp_path / "node").exists()


class AnotherBully:
    @hookimpl
    def distinv_elections(self) -> dict[str, Any]:
        return {"bully": lambda context: None}


def test_two_plugins_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="two plugins bring the election 'bully'"):
        on_loopback(tmp_path, plugins=[AnotherBully()])


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1"])
async def test_without_a_key_a_server_stays_on_this_machine(host: str, tmp_path: Path) -> None:
    refusal = await refusal_of(on_loopback(tmp_path, bind=f"{host}:0"))
    assert isinstance(refusal, ConfigError)
    assert "there is no cluster key" in str(refusal)
    assert "distinv keygen" in str(refusal)


async def test_without_a_key_servers_on_other_machines_are_refused(tmp_path: Path) -> None:
    refusal = await refusal_of(on_loopback(tmp_path, servers=["192.0.2.1:4747"]))
    assert "the server 192.0.2.1:4747 is on another machine" in str(refusal)


@pytest.mark.parametrize("settings", [{"insecure": True}, {"key": new_key()}])
async def test_the_insecure_and_the_keyed_listen_everywhere(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    config = config_of_its_own()
    config = evolve(config, network=evolve(config.network, port=free_port()))
    async with on_loopback(tmp_path, config=config, **settings) as server:
        assert server.address[0] == "0.0.0.0"


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    async with on_loopback(tmp_path, bind="127.0.0.1:0") as first:
        port = first.address[1]
        second = on_loopback(tmp_path, data_dir=tmp_path / "other", bind=f"127.0.0.1:{port}")
        assert f"port {port}/udp of 127.0.0.1 is in use" in str(await refusal_of(second))


async def test_a_default_port_in_use_gives_way(tmp_path: Path) -> None:
    config = config_of_its_own()
    config = evolve(config, network=evolve(config.network, port=free_port()))
    async with (
        on_loopback(tmp_path, data_dir=tmp_path / "a", config=config) as first,
        on_loopback(tmp_path, data_dir=tmp_path / "b", config=config) as second,
    ):
        assert first.address != second.address


async def test_a_locked_directory_names_its_holder(tmp_path: Path) -> None:
    async with on_loopback(tmp_path):
        refusal = await refusal_of(on_loopback(tmp_path))
    assert isinstance(refusal, StorageError)
    assert "is in use by a running server (pid " in str(refusal)


@about_files
async def test_a_directory_of_another_cluster_names_both(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)):
        pass
    other = Cluster("warehouse", data_dir=tmp_path / "node-0", config=config_of_its_own())
    refusal = await refusal_of(other)
    assert isinstance(refusal, StorageError)
    assert "belongs to the cluster 'shop', not to 'warehouse'" in str(refusal)
    async with running(shop.server(0)):
        pass


async def make_some_history(shop: MemoryCluster) -> None:
    async with running(shop.server(0)), shop.client() as inventory:
        await inventory.put_item("a")
        await inventory.receive({"a": 5})


@about_files
async def test_a_corrupt_entry_is_found(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    await make_some_history(shop)
    (segment,) = (tmp_path / "node-0" / "journal").glob("*")
    content = bytearray(segment.read_bytes())
    middle = content.find(b"shop") + 1
    content[middle] ^= 1
    segment.write_bytes(content)
    refusal = await refusal_of(shop.server(0))
    assert isinstance(refusal, CorruptLog)
    assert str(segment) in str(refusal)


@about_files
async def test_a_store_without_its_journal_is_refused(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    await make_some_history(shop)
    shutil.rmtree(tmp_path / "node-0" / "journal")
    refusal = await refusal_of(shop.server(0))
    assert isinstance(refusal, StorageError)
    assert "but the journal ends at 0: a part of the journal is missing" in str(refusal)


@about_files
async def test_a_store_of_another_server_is_refused(tmp_path: Path) -> None:
    for name in ("here", "there"):
        await make_some_history(MemoryCluster(tmp_path / name, expect=1))
    store = "node-0/store.sqlite3"
    shutil.copy(tmp_path / "there" / store, tmp_path / "here" / store)
    refusal = await refusal_of(MemoryCluster(tmp_path / "here", expect=1).server(0))
    assert "tell different stories of log entry" in str(refusal)


@about_files
async def test_a_store_that_was_lost_is_made_again(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    await make_some_history(shop)
    for file in (tmp_path / "node-0").glob("store.sqlite3*"):
        file.unlink()
    async with running(shop.server(0)), shop.client() as inventory:
        assert (await inventory.level("a")).on_hand == 5
    with sqlite3.connect(tmp_path / "node-0" / "store.sqlite3") as database:
        assert database.execute("SELECT sum(on_hand) FROM levels").fetchone() == (5,)
    database.close()


@about_files
async def test_in_memory_nothing_is_written(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1, storage="memory")
    async with running(shop.server(0)), shop.client() as inventory:
        await inventory.put_item("a")
    assert list(tmp_path.iterdir()) == []


async def test_after_a_failed_start_everything_is_free_again(tmp_path: Path) -> None:
    async with on_loopback(tmp_path, data_dir=tmp_path / "first", bind="127.0.0.1:0") as first:
        port = first.address[1]
        await refusal_of(on_loopback(tmp_path, bind=f"127.0.0.1:{port}"))
    async with on_loopback(tmp_path, bind=f"127.0.0.1:{port}") as second:
        assert second.address == ("127.0.0.1", port)


def fail(context: object) -> Any:
    raise KeyError("no such\nthing")


@pytest.mark.parametrize("kind", ["election", "multicast", "transport", "discovery", "storage"])
async def test_a_plugin_that_fails_at_the_start_is_named(kind: str, tmp_path: Path) -> None:
    refusal = await refusal_of(on_loopback(tmp_path, **{kind: fail}))
    assert isinstance(refusal, PluginError)
    assert f"the {kind} plugin failed at the start: KeyError: 'no such" in str(refusal)


class FailingObserver:
    @hookimpl
    def distinv_observers(self) -> dict[str, Any]:
        return {"watcher": fail}


def test_an_observer_that_fails_at_the_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="the observer watcher failed at the start: KeyError"):
        on_loopback(tmp_path, plugins=[FailingObserver()])
