"""What the payload of a COMMANDS entry holds: a batch of what clients want, in order.

Not a message, but what requests become in the log. Tags are append-only.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class OpenCommand(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Opens a session; its id is `session_id(entry index, offset in the batch)`."""

    nonce: int
    name: str


class SessionCommand(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Command `number` of a session: takes effect once, right after `number - 1`."""

    session: int
    number: int
    lowest: int
    command: bytes
    """Empty for a void: the number takes no effect."""


class CloseSession(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """Decides every number of the session that was not applied before: it never will be."""

    session: int


LogCommand: TypeAlias = OpenCommand | SessionCommand | CloseSession

OFFSET_BITS = 12
"""Room for the offset of a command in its batch; see `Limits.batch_commands`."""


def session_id(index: int, offset: int) -> int:
    """The id of the session that command `offset` of entry `index` opened."""
    return (index << OFFSET_BITS) | offset


_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(tuple[LogCommand, ...])


def encode_batch(commands: list[LogCommand]) -> bytes:
    return _batch_encoder.encode(commands)


def decode_batch(payload: bytes) -> tuple[LogCommand, ...]:
    """Decode the payload of a committed `COMMANDS` entry."""
    return _batch_decoder.decode(payload)
