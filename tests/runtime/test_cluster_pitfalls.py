"""The known traps that need a directory and a whole cluster to be seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest
from cluster_kit import DEADLINE_S, MemoryCluster, running

pytestmark = pytest.mark.anyio


async def test_a_server_returns_with_an_empty_disk_under_its_old_id(tmp_path: Path) -> None:
    """A blank directory means a new id, which gets the log and has no vote."""
    shop = MemoryCluster(tmp_path)
    async with shop.server(0), shop.server(1), shop.client() as inventory:
        async with running(shop.server(2)) as (third,):
            old = third.node_id
            await inventory.put_item("a")
        shutil.rmtree(tmp_path / "node-2")
        async with running(shop.server(2)) as (third,):
            assert third.node_id != old
            with anyio.fail_after(DEADLINE_S):
                while third.status().seq < 1:
                    await anyio.sleep(0.002)
            (leader,) = (each for each in await inventory.status() if each.role == "leader")
            roles = {server.node: server.role for server in leader.servers}
            assert roles[third.node_id] == "learner"
            assert third.status().role == "learner"
