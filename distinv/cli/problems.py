"""What a command says when it fails, and with which exit status."""

from __future__ import annotations

from typing import Any

from distinv.errors import (
    DistinvError,
    IdempotencyKeyReused,
    InsufficientStock,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    StaleVersion,
    Unavailable,
)

DONE = 0
REFUSED = 1
WRONG = 2
UNAVAILABLE = 3


class ServerStopped(DistinvError):
    """A server that had been running stopped by itself."""

    code = "server_stopped"


def exit_status(error: DistinvError) -> int:
    """See `distinv.cli.main`."""
    if isinstance(error, Rejected | NotFound):
        return REFUSED
    if isinstance(error, Unavailable | OutcomeUnknown | ServerStopped):
        return UNAVAILABLE
    return WRONG


def describe(error: DistinvError) -> dict[str, Any]:
    """The error as one JSON object; `message` is one line that says what to do."""
    from distinv.cli.output import plain

    found: dict[str, Any] = {
        "code": error.code,
        "message": _message(error),
        "retryable": error.retryable,
    }
    if error.seq is not None:
        found["seq"] = error.seq
    match error:
        case InsufficientStock():
            found["shortages"] = plain(error.shortages)
        case StaleVersion():
            found["current"] = plain(error.current)
        case IdempotencyKeyReused():
            found["original_seq"] = error.original_seq
        case Overloaded():
            found["retry_after"] = error.retry_after
        case OutcomeUnknown():
            found["idempotency_key"] = error.idempotency_key
    return found


def _message(error: DistinvError) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, OutcomeUnknown) and error.idempotency_key:
        text += f" (key {error.idempotency_key})"
    return text
