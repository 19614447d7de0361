"""What a server's memory holds with many levels."""

from __future__ import annotations

from attrs import frozen

from benchmarks.machine import resident_bytes
from distinv import InventoryClient, calls
from distinv.config import Limits
from distinv.testing.processes import ServerProcesses


@frozen
class Memory:
    """Resident bytes of each server."""

    empty: tuple[int, ...]
    full: tuple[int, ...]


async def fill(servers: ServerProcesses, levels: int) -> Memory:
    """Create so many skus, each with stock; the servers must be fresh."""
    empty = _resident(servers)
    async with servers.client("stockroom") as inventory:
        await stock(inventory, levels)
    await servers.wait_converged()
    return Memory(empty, _resident(servers))


async def stock(inventory: InventoryClient, levels: int, name: str = "Article") -> None:
    """So many skus with something on hand, by as few commands as may be."""
    step = Limits().lines_per_command
    for first in range(0, levels, step):
        skus = [f"SKU-{number:07}" for number in range(first, min(first + step, levels))]
        await inventory.execute([calls.put_item(sku, name=f"{name} {sku}") for sku in skus])
        await inventory.receive(dict.fromkeys(skus, 100), reference=f"PO-{first}")


def _resident(servers: ServerProcesses) -> tuple[int, ...]:
    return tuple(resident_bytes(server.pid) for server in servers.running if server.pid)
