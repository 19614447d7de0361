"""A server whose directory is the copy of a running one's: real directories, real loops."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import anyio
import pytest
from cluster_kit import (
    DEADLINE_S,
    MemoryCluster,
    config_of_its_own,
    eventually,
    free_port,
    running,
    with_timing,
)

from distinv import Cluster, Config, IdentityInUse
from distinv.testing.cluster import CutNetwork, quick

pytestmark = pytest.mark.anyio


def patient(config: Config) -> Config:
    """Asks for as long as it takes: an answer ends it, however slow the machine is."""
    return with_timing(config, roll_call_us=int(DEADLINE_S * 1_000_000))


def contents(directory: Path) -> dict[str, bytes]:
    """Of the log and its promises; the store's own files are SQLite's affair."""
    journal = directory / "journal"
    return {file.name: file.read_bytes() for file in sorted(journal.iterdir())}


async def refusal_of(copy: Cluster) -> str:
    with anyio.fail_after(DEADLINE_S), pytest.raises(IdentityInUse) as refusal:
        await copy.__aenter__()
    text = str(refusal.value)
    assert "\n" not in text
    return text


async def test_the_copy_of_a_running_server_does_not_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says where the original runs; the original says where the copy was, and goes on."""
    shop = MemoryCluster(tmp_path)
    async with (
        running(shop.server(0), shop.server(1), shop.server(2)) as servers,
        shop.client() as inventory,
    ):
        await inventory.put_item("a")
        shutil.copytree(tmp_path / "node-1", tmp_path / "node-9")
        await inventory.receive({"a": 5})
        before = contents(tmp_path / "node-9")
        with caplog.at_level(logging.ERROR, "distinv"):
            text = await refusal_of(shop.server(9, config=patient(quick())))
        host, port = servers[1].address
        assert f"another process at {host}:{port} has this server's identity" in text
        assert f"({servers[1].node_id:016x})" in text
        assert "empty data directory" in text
        await eventually(lambda: any("came later" in each.message for each in caplog.records))
        (alarm,) = (each.message for each in caplog.records if "came later" in each.message)
        assert alarm.startswith("node-1: another process at ")
        assert contents(tmp_path / "node-9") == before
        await inventory.ship({"a": 1})
        await eventually(lambda: len({each.status().state_digest for each in servers}) == 1)
        assert all(each.leader is not None for each in servers)


async def test_a_blank_directory_in_its_place_joins(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (first,):
        shutil.copytree(tmp_path / "node-0", tmp_path / "node-1")
        await refusal_of(shop.server(1, config=patient(quick())))
        shutil.rmtree(tmp_path / "node-1")
        listens = with_timing(quick(), discovery_window_us=int(DEADLINE_S * 1_000_000))
        async with running(shop.server(1, config=listens)) as (second,):
            assert second.leader == first.node_id
            assert second.node_id != first.node_id


async def test_once_the_original_is_gone_the_copy_may_run(tmp_path: Path) -> None:
    """A directory may move to another machine; only not live in two places."""
    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)) as (first,), shop.client() as inventory:
        await inventory.put_item("a")
        node = first.node_id
    shutil.copytree(tmp_path / "node-0", tmp_path / "node-1")
    async with running(shop.server(1)) as (moved,):
        assert moved.node_id == node


async def test_on_real_sockets(tmp_path: Path) -> None:
    """The beacon port is shared: the call is heard there, and answered to where it came from."""
    config = patient(config_of_its_own())

    def server(name: str) -> Cluster:
        return Cluster(
            "shop", data_dir=tmp_path / name, bind=f"127.0.0.1:{free_port()}", config=config
        )

    async with running(server("first")):
        shutil.copytree(tmp_path / "first", tmp_path / "second")
        assert "another process at 127.0.0.1:" in await refusal_of(server("second"))


async def test_of_two_that_could_not_hear_each_other_the_newer_stops(tmp_path: Path) -> None:
    """Cut off while it asked, it takes part; as soon as they hear each other it stops."""
    network = CutNetwork()
    shop = MemoryCluster(
        tmp_path,
        expect=1,
        config=with_timing(quick(), beacon_us=50_000),
        transport=network.open_transport,
        discovery=network.open_discovery,
    )
    async with running(shop.server(0)) as (original,):
        shutil.copytree(tmp_path / "node-0", tmp_path / "node-1")
        copy = shop.server(1, bind="127.0.0.1:5000")
        network.cut(("127.0.0.1", 5000))
        async with copy:
            await copy.ready()  # a cluster of one: now there are two of it
            network.heal()
            with anyio.fail_after(DEADLINE_S), pytest.raises(IdentityInUse, match="there first"):
                await copy.serve()
            assert original.is_leader
            with pytest.raises(IdentityInUse):
                await copy.ready()


class Deaf:
    """A discovery that fails whenever it is asked to listen."""

    def targets(self) -> list[tuple[str, int]]:
        return []

    async def listen(self, deliver: object) -> None:
        raise OSError("the interface is gone")

    async def aclose(self) -> None:
        pass


async def test_a_server_that_hears_nobody_starts_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It has asked, and nobody can have answered; that it is deaf is said once it runs."""

    async def deaf(context: object) -> Deaf:
        return Deaf()

    shop = MemoryCluster(tmp_path, expect=1)
    async with running(shop.server(0)):
        pass
    async with running(shop.server(0, discovery=deaf)) as (server,):
        assert server.is_leader
        await eventually(lambda: "the interface is gone" in caplog.text)
