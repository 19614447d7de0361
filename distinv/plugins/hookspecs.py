"""What a plugin can add to distinv: named factories, one hook for each extension point.

A plugin is a module or an object with functions marked `hookimpl`::

    from distinv import hookimpl

    @hookimpl
    def distinv_elections():
        return {"lowest-load": LowestLoad}

It is found by an entry point in the group `distinv`, or given as `plugins=[…]`. Hooks are
called once, when a cluster or a client is made; what the factories must be stands in the
`api.py` of each extension point. A name consists of lower-case letters, digits, `-` and `_`,
and belongs to one plugin only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, TypeVar

import pluggy

from distinv.discovery.api import DiscoveryFactory
from distinv.election.api import ElectionFactory
from distinv.multicast.api import MulticastFactory
from distinv.plugins.observer import ObserverFactory
from distinv.storage.api import StorageFactory
from distinv.transport.api import TransportFactory

PROJECT = "distinv"
"""The name of the pluggy project, and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

Factory = TypeVar("Factory")
Named: TypeAlias = Mapping[str, Factory] | Iterable[tuple[str, Factory]]
"""What every hook returns: factories by name."""


@hookspec
def distinv_elections() -> Named[ElectionFactory]:  # type: ignore[empty-body]
    """Ways to agree on whom to nominate (`distinv.election.api`)."""


@hookspec
def distinv_multicasts() -> Named[MulticastFactory]:  # type: ignore[empty-body]
    """Ways to reach all peers (`distinv.multicast.api`)."""


@hookspec
def distinv_discoveries() -> Named[DiscoveryFactory]:  # type: ignore[empty-body]
    """Ways to find servers (`distinv.discovery.api`)."""


@hookspec
def distinv_transports() -> Named[TransportFactory]:  # type: ignore[empty-body]
    """Ways to move datagrams (`distinv.transport.api`)."""


@hookspec
def distinv_storages() -> Named[StorageFactory]:  # type: ignore[empty-body]
    """Places for the log and the promises (`distinv.storage.api`)."""


@hookspec
def distinv_observers() -> Named[ObserverFactory]:  # type: ignore[empty-body]
    """Who hears what happens (`distinv.plugins.observer`). All of them are used."""
