"""Every exception of distinv on one screen. Each says what to do: fix, retry, ask again, give up.

`code` is stable and is what crosses the wire; `retryable` says whether sending the very same
call again may help; `seq` is the position in the total order, where the answer has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from distinv.model import Level, Shortage


class DistinvError(Exception):
    """The root. `code` is stable, `retryable` tells whether the same call may succeed later."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", *, seq: int | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.seq = seq


# --- the request itself is wrong: fix it ------------------------------------------------------


class InvalidRequest(DistinvError, ValueError):
    """The request can never succeed as it is."""

    code = "invalid_request"


class InvalidQuantity(InvalidRequest):
    """A quantity is not a whole number within the allowed range."""

    code = "invalid_quantity"


class InvalidSku(InvalidRequest):
    """A sku is empty, too long, or not text."""

    code = "invalid_sku"


class InvalidLocation(InvalidRequest):
    """A location is empty, too long, not text, or not allowed for this command."""

    code = "invalid_location"


class TooManyLines(InvalidRequest):
    """A command has more lines than `Limits.lines_per_command`."""

    code = "too_many_lines"


# --- what was asked for does not exist --------------------------------------------------------


class NotFound(DistinvError, LookupError):
    """What was asked for does not exist."""

    code = "not_found"


class UnknownItem(NotFound):
    """No item has this sku: create it with put_item first."""

    code = "unknown_item"


class UnknownLocation(NotFound):
    """No location has this name: create it with put_location first."""

    code = "unknown_location"


# --- ordered, but refused: no effect, and a seq -----------------------------------------------


class Rejected(DistinvError):
    """The inventory refused the command; it had no effect, and it has a place in the order."""

    code = "rejected"


class InsufficientStock(Rejected):
    """There is not enough stock; `shortages` lists every line that fell short."""

    code = "insufficient_stock"

    def __init__(
        self, message: str = "", *, shortages: tuple[Shortage, ...] = (), seq: int | None = None
    ) -> None:
        super().__init__(message, seq=seq)
        self.shortages = shortages


class StaleVersion(Rejected):
    """The compare failed: somebody changed it in between. `current` is what it is now."""

    code = "stale_version"

    def __init__(
        self, message: str = "", *, current: Level | int | None = None, seq: int | None = None
    ) -> None:
        super().__init__(message, seq=seq)
        self.current = current


class IdempotencyKeyReused(Rejected):
    """The key was used before with another payload, at `original_seq`."""

    code = "idempotency_key_reused"

    def __init__(self, message: str = "", *, original_seq: int = 0, seq: int | None = None) -> None:
        super().__init__(message, seq=seq)
        self.original_seq = original_seq


class TooManyKeys(Rejected):
    """The cluster remembers `Limits.keys_max` keys already: retry without a key, or later."""

    code = "too_many_keys"
    retryable = True


class AlreadyExists(Rejected):
    """It exists already."""

    code = "already_exists"


class ItemNotEmpty(Rejected):
    """There is still stock of it."""

    code = "item_not_empty"


class ItemDiscontinued(Rejected):
    """The item is discontinued: nothing more is received of it."""

    code = "item_discontinued"


# --- certainly not applied: retry later -------------------------------------------------------


class Unavailable(DistinvError):
    """The command was certainly not applied. Sending it again is safe."""

    code = "unavailable"
    retryable = True


class NoServer(Unavailable):
    """No server of the cluster was found."""

    code = "no_server"


class NoLeader(Unavailable):
    """Servers answer, but they have no leader just now."""

    code = "no_leader"


class NoQuorum(Unavailable):
    """Servers answer, but too few of them to decide anything."""

    code = "no_quorum"


class Overloaded(Unavailable):
    """The servers have too much to do. Try again after `retry_after` seconds."""

    code = "overloaded"

    def __init__(
        self, message: str = "", *, retry_after: float = 0.0, seq: int | None = None
    ) -> None:
        super().__init__(message, seq=seq)
        self.retry_after = retry_after


# --- may have been applied: ask ---------------------------------------------------------------


class OutcomeUnknown(DistinvError, TimeoutError):
    """The command may have been applied. Ask `resolve(error.idempotency_key)` what became of it."""

    code = "outcome_unknown"

    def __init__(
        self, message: str = "", *, idempotency_key: str | None = None, seq: int | None = None
    ) -> None:
        super().__init__(message, seq=seq)
        self.idempotency_key = idempotency_key


# --- the set-up is wrong ----------------------------------------------------------------------


class ConfigError(DistinvError, ValueError):
    """A setting is wrong, or two settings do not go together."""

    code = "config"


class PluginError(DistinvError):
    """A plugin is unknown, named twice, or does not fit its contract."""

    code = "plugin"


class StorageError(DistinvError):
    """The data directory cannot be used, or the disk failed. The server has stopped cleanly."""

    code = "storage"


class IdentityInUse(StorageError):
    """Another process has this server's identity: its data directory was copied, or cloned.

    This one has stopped, or has not started; nothing on its disk was harmed.
    """

    code = "identity_in_use"


class UpgradeNeeded(StorageError):
    """The log holds what this release does not know: the cluster runs a later one.

    The server has stopped cleanly, and lost nothing. Upgrade it, and start it again.
    """

    code = "upgrade_needed"


class CorruptLog(StorageError):
    """A record that was written whole does not match its checksum."""

    code = "corrupt_log"


class VersionMismatch(DistinvError):
    """The other side, or a server of the cluster, does not speak the protocol that is needed."""

    code = "version_mismatch"


class PermissionDenied(DistinvError):
    """The other side has another cluster key."""

    code = "permission_denied"


class BadDatagram(DistinvError):
    """Bytes from the network are not what they should be. They are dropped and counted."""

    code = "bad_datagram"
