"""For those who write plugins, and applications: what proves them (docs/testing.md).

The conformance suites are for the authors of plugins, `MemoryCluster` and `jumping_clock` for
those of applications, `simulate` for both; `ServerProcesses` starts real servers. The fixtures of
`distinv.testing.pytest_plugin` are there as soon as distinv is installed beside pytest.

A name is imported when it is first used: only the suites and the fixtures need pytest, and only
the jumping clock needs trio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distinv.testing.clock import jumping_clock
    from distinv.testing.cluster import MemoryCluster, MemoryServer
    from distinv.testing.conformance.discovery import DiscoverySuite
    from distinv.testing.conformance.election import ElectionSuite
    from distinv.testing.conformance.multicast import MulticastSuite
    from distinv.testing.conformance.storage import StorageSuite
    from distinv.testing.conformance.transport import TransportSuite
    from distinv.testing.processes import ServerProcess, ServerProcesses
    from distinv.testing.simulator.simulation import Outcome, simulate
    from distinv.testing.steering import FaultControl

_HOMES = {
    "DiscoverySuite": "distinv.testing.conformance.discovery",
    "ElectionSuite": "distinv.testing.conformance.election",
    "FaultControl": "distinv.testing.steering",
    "MemoryCluster": "distinv.testing.cluster",
    "MemoryServer": "distinv.testing.cluster",
    "MulticastSuite": "distinv.testing.conformance.multicast",
    "Outcome": "distinv.testing.simulator.simulation",
    "ServerProcess": "distinv.testing.processes",
    "ServerProcesses": "distinv.testing.processes",
    "StorageSuite": "distinv.testing.conformance.storage",
    "TransportSuite": "distinv.testing.conformance.transport",
    "jumping_clock": "distinv.testing.clock",
    "simulate": "distinv.testing.simulator.simulation",
}
"""Where each public name lives."""

__all__ = [
    "DiscoverySuite",
    "ElectionSuite",
    "FaultControl",
    "MemoryCluster",
    "MemoryServer",
    "MulticastSuite",
    "Outcome",
    "ServerProcess",
    "ServerProcesses",
    "StorageSuite",
    "TransportSuite",
    "jumping_clock",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distinv.testing' has no attribute {name!r}")
    value: Any = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
