"""distinv: the stock of goods on a small cluster of servers, nothing sold twice or lost.

    from distinv import Cluster, InventoryClient, InventoryStore, InsufficientStock

`Cluster` is a server in this process, `InventoryClient` finds servers and asks them,
`InventoryStore` keeps an inventory in a file of its own. A name is imported when it is first
used, so that a program does not wait for what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distinv.client.client import InventoryClient
    from distinv.client.status import ClusterStatus, KnownServer, ServerStatus
    from distinv.config import Config, FaultSettings, Limits, Network, Timing
    from distinv.errors import (
        AlreadyExists,
        BadDatagram,
        ConfigError,
        CorruptLog,
        DistinvError,
        IdempotencyKeyReused,
        IdentityInUse,
        InsufficientStock,
        InvalidLocation,
        InvalidQuantity,
        InvalidRequest,
        InvalidSku,
        ItemDiscontinued,
        ItemNotEmpty,
        NoLeader,
        NoQuorum,
        NoServer,
        NotFound,
        OutcomeUnknown,
        Overloaded,
        PermissionDenied,
        PluginError,
        Rejected,
        StaleVersion,
        StorageError,
        TooManyKeys,
        TooManyLines,
        Unavailable,
        UnknownItem,
        UnknownLocation,
        UpgradeNeeded,
        VersionMismatch,
    )
    from distinv.inventory import calls
    from distinv.inventory.store import InventoryStore
    from distinv.model import (
        MAIN,
        AttributeValue,
        Cursor,
        Digest,
        Item,
        LedgerEntry,
        Level,
        Line,
        Lines,
        Location,
        Page,
        Read,
        Receipt,
        Shortage,
    )
    from distinv.plugins.hookspecs import hookimpl
    from distinv.plugins.manager import Plugins
    from distinv.runtime.cluster import Cluster
    from distinv.wire.seal import new_key

_HOMES = {
    "InventoryClient": "distinv.client.client",
    "ClusterStatus": "distinv.client.status",
    "KnownServer": "distinv.client.status",
    "ServerStatus": "distinv.client.status",
    "Config": "distinv.config",
    "FaultSettings": "distinv.config",
    "Limits": "distinv.config",
    "Network": "distinv.config",
    "Timing": "distinv.config",
    "AlreadyExists": "distinv.errors",
    "BadDatagram": "distinv.errors",
    "ConfigError": "distinv.errors",
    "CorruptLog": "distinv.errors",
    "DistinvError": "distinv.errors",
    "IdempotencyKeyReused": "distinv.errors",
    "IdentityInUse": "distinv.errors",
    "InsufficientStock": "distinv.errors",
    "InvalidLocation": "distinv.errors",
    "InvalidQuantity": "distinv.errors",
    "InvalidRequest": "distinv.errors",
    "InvalidSku": "distinv.errors",
    "ItemDiscontinued": "distinv.errors",
    "ItemNotEmpty": "distinv.errors",
    "NoLeader": "distinv.errors",
    "NoQuorum": "distinv.errors",
    "NoServer": "distinv.errors",
    "NotFound": "distinv.errors",
    "OutcomeUnknown": "distinv.errors",
    "Overloaded": "distinv.errors",
    "PermissionDenied": "distinv.errors",
    "PluginError": "distinv.errors",
    "Rejected": "distinv.errors",
    "StaleVersion": "distinv.errors",
    "StorageError": "distinv.errors",
    "TooManyKeys": "distinv.errors",
    "TooManyLines": "distinv.errors",
    "Unavailable": "distinv.errors",
    "UnknownItem": "distinv.errors",
    "UnknownLocation": "distinv.errors",
    "UpgradeNeeded": "distinv.errors",
    "VersionMismatch": "distinv.errors",
    "InventoryStore": "distinv.inventory.store",
    "MAIN": "distinv.model",
    "AttributeValue": "distinv.model",
    "Cursor": "distinv.model",
    "Digest": "distinv.model",
    "Item": "distinv.model",
    "LedgerEntry": "distinv.model",
    "Level": "distinv.model",
    "Line": "distinv.model",
    "Lines": "distinv.model",
    "Location": "distinv.model",
    "Page": "distinv.model",
    "Read": "distinv.model",
    "Receipt": "distinv.model",
    "Shortage": "distinv.model",
    "hookimpl": "distinv.plugins.hookspecs",
    "Plugins": "distinv.plugins.manager",
    "Cluster": "distinv.runtime.cluster",
    "new_key": "distinv.wire.seal",
}
"""Where each public name lives."""

__all__ = [
    "MAIN",
    "AlreadyExists",
    "AttributeValue",
    "BadDatagram",
    "Cluster",
    "ClusterStatus",
    "Config",
    "ConfigError",
    "CorruptLog",
    "Cursor",
    "Digest",
    "DistinvError",
    "FaultSettings",
    "IdempotencyKeyReused",
    "IdentityInUse",
    "InsufficientStock",
    "InvalidLocation",
    "InvalidQuantity",
    "InvalidRequest",
    "InvalidSku",
    "InventoryClient",
    "InventoryStore",
    "Item",
    "ItemDiscontinued",
    "KnownServer",
    "ItemNotEmpty",
    "LedgerEntry",
    "Level",
    "Limits",
    "Line",
    "Lines",
    "Location",
    "Network",
    "NoLeader",
    "NoQuorum",
    "NoServer",
    "NotFound",
    "OutcomeUnknown",
    "Overloaded",
    "Page",
    "PermissionDenied",
    "PluginError",
    "Plugins",
    "Read",
    "Receipt",
    "Rejected",
    "ServerStatus",
    "Shortage",
    "StaleVersion",
    "StorageError",
    "Timing",
    "TooManyKeys",
    "TooManyLines",
    "Unavailable",
    "UnknownItem",
    "UnknownLocation",
    "UpgradeNeeded",
    "VersionMismatch",
    "calls",
    "hookimpl",
    "new_key",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name == "calls":
        value = import_module("distinv.inventory.calls")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'distinv' has no attribute {name!r}")
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("distinv")
    except PackageNotFoundError:  # run from its sources
        return "0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
