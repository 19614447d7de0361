"""What distinv itself plugs in, by the door that is open to everybody.

The memory transport is not here: it needs a network object that both sides share
(`distinv.transport.memory.MemoryNetwork`), and is given as a factory.
"""

from __future__ import annotations

from collections.abc import Mapping

from distinv.discovery.api import DiscoveryFactory
from distinv.discovery.beacon import open_beacon
from distinv.discovery.static import open_static
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.multicast.api import MulticastFactory
from distinv.multicast.fanout import fanout
from distinv.plugins.hookspecs import hookimpl
from distinv.storage.api import StorageContext, StorageFactory
from distinv.storage.journal import journal_storage
from distinv.storage.memory import MemoryStorage
from distinv.transport.api import TransportFactory
from distinv.transport.faulty import faulty
from distinv.transport.udp import open_udp


@hookimpl
def distinv_elections() -> Mapping[str, ElectionFactory]:
    return {"bully": Bully, "ring": Ring}


@hookimpl
def distinv_multicasts() -> Mapping[str, MulticastFactory]:
    return {"fanout": fanout}


@hookimpl
def distinv_discoveries() -> Mapping[str, DiscoveryFactory]:
    return {"beacon": open_beacon, "static": open_static}


@hookimpl
def distinv_transports() -> Mapping[str, TransportFactory]:
    return {"udp": open_udp, "faulty": faulty(open_udp)}


@hookimpl
def distinv_storages() -> Mapping[str, StorageFactory]:
    return {"journal": journal_storage, "memory": _memory_storage}


def _memory_storage(context: StorageContext) -> MemoryStorage:
    """For tests and trials: a server that stops has lost its promises, so it needs a new id."""
    return MemoryStorage()
