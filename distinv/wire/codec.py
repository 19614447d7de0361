"""Messages to bytes and back."""

from __future__ import annotations

import msgspec

from distinv.errors import BadDatagram
from distinv.wire.messages import Message

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_untrusted(body: bytes) -> Message:
    """The message in `body`. Raises BadDatagram, and nothing else."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadDatagram(str(error)) from None
