"""A server that runs an earlier release than its cluster stops, in words, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import anyio
import msgspec
import pytest
from cluster_kit import DEADLINE_S, MemoryCluster, running

from distinv.entry import EntryKind, make_entry
from distinv.errors import UpgradeNeeded
from distinv.storage.api import EntryRecord, StorageContext
from distinv.storage.journal import journal_storage

pytestmark = pytest.mark.anyio

LATER = 250
"""A kind that no release knows."""


async def add_to_journal(shop: MemoryCluster, node: Path, kind: int, payload: bytes) -> int:
    """The only server served, and a later release wrote one entry more. Returns its index."""
    async with running(shop.server(0)), shop.client() as inventory:
        await inventory.put_item("a")
    journal = journal_storage(StorageContext(node))
    last = journal.recover().entries[-1]
    entry = make_entry(last.position, last.ballot, last.time_us, kind, payload)
    journal.commit([EntryRecord(entry)])
    journal.close()
    return entry.index


def stored(node: Path) -> list[bytes]:
    return [each.read_bytes() for each in sorted((node / "journal").iterdir())]


async def test_an_entry_of_a_later_release_keeps_a_server_from_starting(tmp_path: Path) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    node = tmp_path / "node-0"
    index = await add_to_journal(shop, node, LATER, b"from the future")
    before = stored(node)
    with anyio.fail_after(DEADLINE_S), pytest.raises(UpgradeNeeded) as refusal:
        await shop.server(0).__aenter__()
    assert str(refusal.value) == (
        f"entry {index} is of a kind that this release does not know: the cluster runs a later "
        "one; upgrade this server"
    )
    assert stored(node) == before


async def test_a_command_of_a_later_release_stops_a_server_when_it_is_committed(
    tmp_path: Path,
) -> None:
    shop = MemoryCluster(tmp_path, expect=1)
    batch = msgspec.msgpack.encode([[LATER, 1]])
    index = await add_to_journal(shop, tmp_path / "node-0", EntryKind.COMMANDS, batch)
    told: list[str] = []
    with anyio.fail_after(DEADLINE_S), pytest.raises(UpgradeNeeded) as refusal:
        async with shop.server(0) as server:
            await server.ready()
    told.append(str(refusal.value))
    with anyio.fail_after(DEADLINE_S), pytest.raises(UpgradeNeeded) as refusal:
        async with shop.server(0) as server:
            await server.ready()
    told.append(str(refusal.value))
    assert set(told) == {
        f"entry {index} holds a command that this release does not know: the cluster runs a later "
        "one; upgrade this server"
    }, "every time, and it is not passed over"
