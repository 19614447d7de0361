"""Fixtures for the tests of applications: a cluster in memory, and time that jumps.

pytest finds them by the entry point `distinv` as soon as distinv is installed. Async tests are
anyio's affair: mark them `anyio`, and choose event loops by a fixture `anyio_backend`, as usual.
Nothing is imported before a fixture is used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from distinv.testing.cluster import CutNetwork, MemoryCluster


@pytest.fixture(params=["asyncio", "trio", "jumping-clock"])
def distinv_backend(request: pytest.FixtureRequest) -> Any:
    """For a fixture `anyio_backend` to return: both event loops, and trio with time that jumps."""
    if request.param == "asyncio":
        return "asyncio"
    pytest.importorskip("trio")
    if request.param == "trio":
        return "trio"
    from distinv.testing.clock import jumping_clock

    return jumping_clock()


@pytest.fixture
def distinv_network() -> CutNetwork:
    """The network of `distinv_cluster`, for whoever wants to be on it as well."""
    from distinv.testing.cluster import CutNetwork

    return CutNetwork()


@pytest.fixture
async def distinv_cluster(distinv_network: CutNetwork) -> AsyncIterator[MemoryCluster]:
    """Three servers that serve, in the event loop of the test."""
    from distinv.testing.cluster import MemoryCluster

    async with MemoryCluster(network=distinv_network) as cluster:
        yield cluster
