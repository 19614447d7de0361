"""`ServerProcesses`: what applications and benchmarks start their servers with."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from distinv import NoServer, new_key
from distinv.testing.ports import ReservedPorts
from distinv.testing.processes import Place, ServerFailed, ServerProcesses

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_sealed_cluster_is_killed_and_comes_back(tmp_path: Path) -> None:
    """The other backend's turn is in the tests of `distinv demo`."""
    async with ServerProcesses(
        2, key=new_key(), backend="trio", election="ring", directory=tmp_path
    ) as servers:
        first, second = servers.servers
        leader = await servers.leader()
        follower = second if leader is first else first
        async with servers.client("till") as inventory:
            await inventory.put_item("a")
            await follower.kill()
            assert (follower.running, follower.launched, follower.pid) == (False, False, None)
            await inventory.receive({"a": 3})
            assert {status.name for status in await servers.statuses()} == {leader.name}
            await follower.start()
            one, other = await servers.wait_converged()
            assert (one.seq, one.digest) == (other.seq, other.digest)
            assert (one.seq, one.digest) == (2, (await inventory.digest()).value)
        assert (leader.kills, follower.kills) == (0, 1)
        assert leader.address != follower.address
        assert servers[leader.name] is leader
        assert await follower.stop() == 0
        assert "following" in follower.log
        pid = leader.pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (tmp_path / "server-1" / "journal").is_dir()


async def test_a_server_that_cannot_start_says_why() -> None:
    servers = ServerProcesses(1, election="coin")
    with pytest.raises(ServerFailed, match="server-1 ended with status 2: distinv: there is no"):
        await servers.__aenter__()
    assert not servers.running


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_process_outlives_an_error_of_the_body() -> None:
    pids: list[int] = []

    async def fail() -> None:
        async with ServerProcesses(1) as servers:
            pids.append(servers.servers[0].pid or 0)
            raise RuntimeError("the application's own")

    with pytest.raises(RuntimeError, match="the application's own"):
        await fail()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


async def test_clients_of_one_cluster_do_not_find_another() -> None:
    servers = ServerProcesses(1)
    async with servers.client(timeout=0.2) as inventory:
        with pytest.raises(NoServer):
            await inventory.level("a")


async def test_a_key_of_the_environment_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTINV_KEY", "/nowhere/key")
    servers = ServerProcesses(1)
    assert servers.key is not None
    servers.client()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_server_that_died_by_itself_is_no_quiet_loss() -> None:
    async with ServerProcesses(1) as servers:
        (server,) = servers.servers
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerFailed, match="server-1 ended with status -9"):
            await servers.statuses()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_whoever_ends_at_the_start_is_told_though_another_is_awaited() -> None:
    """Two servers with one port: the second could not start, and "server-1 is not ready after
    30 s" was all that was said."""
    ports = ReservedPorts()
    binds = [f"127.0.0.1:{port}" for port in (ports.take(), ports.take())]
    places = [Place(bind=bind) for bind in (binds[0], binds[1], binds[1])]
    servers = ServerProcesses(3, places=places)
    with pytest.raises(ServerFailed, match=r"server-[23] ended with status 2: .* is in use"):
        await servers.__aenter__()
    ports.release()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_who_is_not_ready_is_told_with_the_last_that_it_said() -> None:
    async with ServerProcesses(1) as servers:
        (server,) = servers.servers
        await server.kill()
        server.launch()
        with pytest.raises(ServerFailed, match=r"^not ready: server-1 \(.+\) after 0 s$"):
            await servers.wait_ready(0)
        await servers.wait_ready()
