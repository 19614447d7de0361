"""What clients asked and what they were told: one `Call` each, written as JSON lines.

The format is documented in docs/torture.md, so that any other checker can read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from distinv.errors import ConfigError

Arguments: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]

COMMANDS = (
    "put_item",
    "put_location",
    "receive",
    "ship",
    "adjust",
    "set_on_hand",
    "transfer",
    "execute",
)
"""Operations that have a place in the order of all commands."""

OUTCOMES = (
    "accepted",  # done, at `seq`
    "refused",  # refused by the inventory, at `seq`; without one, before it was sent
    "unavailable",  # certainly not done, nor ever will be
    "unknown",  # may have been done, `key` says by which name to ask
    "abandoned",  # the caller went away before the answer
    "none",  # of a resolve: the command had no effect
    "value",  # of a question
    "error",  # what a client must never be told
)


class Call(msgspec.Struct, frozen=True):
    """One call of one client. Times are microseconds of one monotonic clock."""

    client: str
    """Which client object: its commands take effect in the order of their lines."""
    start: int
    end: int | None
    """When it was answered; None when nobody heard the answer."""
    operation: str
    arguments: Arguments
    answer: Answer
    seq: int | None = None
    """The command's place in the order; of a question, the place that its answer is of."""

    @property
    def outcome(self) -> str:
        return str(self.answer.get("outcome", ""))

    @property
    def reference(self) -> str:
        return str(self.arguments.get("reference") or "")

    @property
    def key(self) -> str:
        """The caller's own idempotency key, or ""."""
        return str(self.arguments.get("key") or "")

    @property
    def is_command(self) -> bool:
        return self.operation in COMMANDS

    def describe(self) -> str:
        """One line for people: the call as it stands in the file."""
        return encode_call(self).decode()


class _Server(msgspec.Struct):
    name: str
    seq: int
    digest: str
    state_digest: str


_LEVELS = list[tuple[str, str, int, int]]
_ROWS: dict[str, tuple[str, Any]] = {
    "levels": ("levels", _LEVELS),
    "ledger": ("entries", list[tuple[int, str, str, int, int, str, str]]),
    "servers": ("servers", list[_Server]),
}
"""By operation: where in its answer what is, and of what form."""


class _Named(msgspec.Struct, kw_only=True):
    reference: str | None = None
    key: str | None = None


class _PutItem(_Named):
    sku: str


class _PutLocation(_Named):
    name: str


class _Lines(_Named):
    lines: dict[str, int]
    location: str = "main"


class _SetOnHand(_Named):
    sku: str
    quantity: int
    location: str = "main"
    if_on_hand: int = 0


class _Transfer(_Named):
    lines: dict[str, int]
    source: str
    destination: str


class _Part(msgspec.Struct):
    operation: Literal["receive", "ship", "adjust", "set_on_hand", "transfer"]
    arguments: Arguments


class _Execute(_Named):
    operations: list[_Part]


class _Levels(msgspec.Struct):
    keys: list[tuple[str, str]]
    read: Literal["linearizable", "local"] = "linearizable"
    min_seq: int = 0


class _Resolve(msgspec.Struct):
    key: str


_ARGUMENTS: dict[str, Any] = {
    "put_item": _PutItem,
    "put_location": _PutLocation,
    "receive": _Lines,
    "ship": _Lines,
    "adjust": _Lines,
    "set_on_hand": _SetOnHand,
    "transfer": _Transfer,
    "execute": _Execute,
    "levels": _Levels,
    "ledger": Arguments,
    "resolve": _Resolve,
    "servers": Arguments,
}
"""By operation: the arguments that the checker reads, and their forms; there may be more."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Call)


def encode_call(call: Call) -> bytes:
    """One line, without its end."""
    return _ENCODER.encode(call)


def write_history(path: str | os.PathLike[str], calls: Iterable[Call]) -> None:
    """Write the calls, one object a line, in the order in which they began."""
    with open(path, "wb") as file:
        for call in calls:
            file.write(encode_call(call) + b"\n")


def read_history(path: str | os.PathLike[str]) -> list[Call]:
    """Read what `write_history` wrote. Raises ConfigError that names the line."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"the history {path} cannot be read: {error.strerror}") from error
    return [_read_line(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line]


def _read_line(line: bytes, where: str) -> Call:
    try:
        call = _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: this is not a call of a history: {error}") from None
    if call.operation not in _ARGUMENTS:
        known = ", ".join(_ARGUMENTS)
        raise ConfigError(f"{where}: there is no operation {call.operation!r}, only {known}")
    if call.outcome not in OUTCOMES:
        raise ConfigError(f"{where}: the answer's outcome is one of {', '.join(OUTCOMES)}")
    if call.end is not None and call.end < call.start:
        raise ConfigError(f"{where}: it ended before it began")
    try:
        _check_answer(call)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: the answer is not of the documented form: {error}") from None
    try:
        _check_arguments(call)
    except msgspec.ValidationError as error:
        text = f"the arguments are not of the documented form: {error}"
        raise ConfigError(f"{where}: {text}") from None
    return call


def _check_arguments(call: Call) -> None:
    """Raises msgspec.ValidationError."""
    if call.is_command and call.outcome == "refused" and call.seq is None:
        return  # refused before it was sent, perhaps for these very arguments
    msgspec.convert(call.arguments, _ARGUMENTS[call.operation])
    if call.operation == "execute":
        for part in call.arguments["operations"]:
            msgspec.convert(part["arguments"], _ARGUMENTS[part["operation"]])


def _check_answer(call: Call) -> None:
    """Raises msgspec.ValidationError."""
    answer = call.answer
    if call.outcome == "value" and call.operation in _ROWS:
        name, form = _ROWS[call.operation]
        msgspec.convert(answer.get(name), form)
    elif call.outcome in ("accepted", "refused"):
        for name in ("levels", "shortages"):
            msgspec.convert(answer.get(name, ()), _LEVELS)
        msgspec.convert(answer.get("code", ""), str)
