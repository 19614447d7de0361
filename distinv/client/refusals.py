"""Why nobody serves this client, in the words of the error it will raise."""

from __future__ import annotations

from distinv.errors import (
    DistinvError,
    NoLeader,
    NoQuorum,
    NoServer,
    Overloaded,
    PermissionDenied,
    VersionMismatch,
)
from distinv.transport.api import Address
from distinv.wire.endpoint import Notice

RETRY_AFTER = 0.1
"""Seconds; what a caller is told who met with overload."""


class Refusals:
    """What was noticed while no server was connected, and the error that follows from it."""

    def __init__(self, cluster_name: str) -> None:
        self._cluster_name = cluster_name
        self._denied: Notice | None = None
        self._foreign: str = ""
        self.denied_since: int | None = None
        """When a server first refused the key or the version."""

    def note(self, notice: Notice, now: int) -> None:
        if notice.kind not in ("wrong_key", "version_mismatch"):
            return
        self._denied = notice
        if self.denied_since is None:
            self.denied_since = now

    def foreign(self, address: Address, cluster_id: int) -> None:
        """A cluster of the same name, and not the one this client has joined."""
        self._foreign = (
            f" Another cluster of this name ({cluster_id:016x}) answers at {place(address)}."
        )

    def clear(self) -> None:
        """A server let this client in after all."""
        self._denied = None
        self._foreign = ""
        self.denied_since = None

    def unavailable(self, reason: str, *, connected: bool) -> DistinvError:
        """The error for a call of which certainly no copy was taken."""
        if connected:
            return self._not_served(reason)
        if self._denied is None:
            return NoServer(
                f"No server of the cluster {self._cluster_name!r} answers.{self._foreign}"
            )
        where = place(self._denied.address)
        detail = f" ({self._denied.detail})" if self._denied.detail else ""
        if self._denied.kind == "version_mismatch":
            return VersionMismatch(
                f"The server at {where} speaks another version of the protocol{detail}."
            )
        return PermissionDenied(f"The server at {where} has another cluster key{detail}.")

    def _not_served(self, reason: str) -> DistinvError:
        if reason in ("no_leader", "not_leader"):
            return NoLeader()
        if reason == "overloaded":
            return Overloaded(retry_after=RETRY_AFTER)
        return NoQuorum()


def place(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
