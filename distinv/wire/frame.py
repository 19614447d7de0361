"""The bytes of a datagram: a header in clear, and a body of chunks that is sealed.

    header  magic "dI" · version u8 · flags u8 · key fingerprint 4 bytes · cluster u64
            · sender u64 · sender's boot u64 · receiver's boot u64 (0: not known) · counter u64
    chunk   type u8 · length u16 · content

All integers are big-endian. The magic and the version stay where they are in every version;
chunk types are append-only. A *boot* is the random number of one run of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

import msgspec

from distinv.entry import NodeId
from distinv.errors import BadDatagram

MAGIC = b"dI"
VERSION = 1
"""Of the layout in this module."""
SPEAKS = (1, 1)
"""The oldest and the newest protocol, of messages and log entries, that this process speaks. Two
processes use the newest that both do; without one they have nothing to say to each other."""
WRONG_KEY = 1
"""Flag of a datagram without a body, in clear: "I have the key with this fingerprint"."""
DATAGRAM_BYTES_MAX = 65_535
"""The largest that UDP carries."""
RANGES_MAX = 32
"""Gaps named in one acknowledgement; the next one names the next."""

_HEADER = Struct(">2sBB4sQQQQQ")
_HEADER_START = MAGIC + bytes([VERSION])
_HEADER_FIELDS = Struct(">B4sQQQQQ")
HEADER_BYTES = _HEADER.size
_NODE_MAX = (1 << 63) - 1


class Header(NamedTuple):
    """What stands in clear before the sealed body, without magic and version."""

    flags: int
    fingerprint: bytes
    cluster_id: int
    sender: NodeId
    sender_boot: int
    receiver_boot: int
    """Whom it is for; 0 when the sender does not know which process lives there."""
    counter: int
    """Increases with every datagram of the sender's process."""


def encode_header(header: Header) -> bytes:
    return _HEADER.pack(MAGIC, VERSION, *header)


def encode_plain_header(
    fingerprint: bytes, cluster_id: int, sender: int, boot: int, receiver_boot: int, counter: int
) -> bytes:
    """The header of a datagram without flags: nearly all of them, so it has a way of its own."""
    return _HEADER.pack(
        MAGIC, VERSION, 0, fingerprint, cluster_id, sender, boot, receiver_boot, counter
    )


def version_untrusted(data: bytes) -> int:
    """The protocol version of a datagram of ours. Raises BadDatagram when it is not one."""
    if not HEADER_BYTES <= len(data) <= DATAGRAM_BYTES_MAX:
        raise BadDatagram("datagram length")
    if data[:2] != MAGIC:
        raise BadDatagram("magic")
    return data[2]


def parse_header_untrusted(data: bytes) -> Header:
    """The header of a datagram of this version. Raises BadDatagram."""
    if data[:3] != _HEADER_START and version_untrusted(data) != VERSION:
        raise BadDatagram("version")
    if not HEADER_BYTES <= len(data) <= DATAGRAM_BYTES_MAX:
        raise BadDatagram("datagram length")
    header: Header = tuple.__new__(Header, _HEADER_FIELDS.unpack_from(data, len(_HEADER_START)))
    if not 0 < header.sender <= _NODE_MAX or not header.sender_boot or not header.counter:
        raise BadDatagram("header")
    return header


def common_protocol(theirs: tuple[int, int], ours: tuple[int, int]) -> int:
    """The newest protocol that both speak; 0 when there is none."""
    newest = min(theirs[1], ours[1])
    return newest if newest >= max(theirs[0], ours[0]) else 0


def mismatch(theirs: tuple[int, int], ours: tuple[int, int]) -> str:
    """In words, for the person who has to upgrade one of the two."""
    return f"it speaks {_versions(theirs)} of the protocol, this process {_versions(ours)}"


def _versions(speaks: tuple[int, int]) -> str:
    oldest, newest = speaks
    return f"version {oldest}" if oldest == newest else f"versions {oldest} to {newest}"


# --- chunks -----------------------------------------------------------------------------------


class Unordered(msgspec.Struct, frozen=True, gc=False):
    """A message outside every order, at most once."""

    body: bytes


class Data(msgspec.Struct, frozen=True, gc=False):
    """Segment `seq` of a link's stream; see `link`."""

    epoch: int
    seq: int
    payload: bytes


class Ack(msgspec.Struct, frozen=True):
    """Every segment below `next_seq` has arrived; the `missing` ones should be sent again."""

    epoch: int
    next_seq: int
    missing: tuple[tuple[int, int], ...]
    """Ranges (first, count), ascending, at most `RANGES_MAX`."""


class Announce(msgspec.Struct, frozen=True, gc=False):
    """Every segment below `next_seq` has been sent. Answered by an Ack at once."""

    epoch: int
    next_seq: int


class Hello(msgspec.Struct, frozen=True, gc=False):
    """Proof of presence; see `handshake`."""

    challenge: int
    echo: int
    """The receiver's challenge, 0 when it is not known."""
    wants_answer: bool
    speaks: tuple[int, int] = SPEAKS


class Refuse(msgspec.Struct, frozen=True, gc=False):
    """The stream of this epoch cannot be read; start another."""

    epoch: int


Chunk: TypeAlias = Unordered | Data | Ack | Announce | Hello | Refuse

_UNORDERED, _DATA, _ACK, _ANNOUNCE, _HELLO, _REFUSE = range(1, 7)

_CHUNK = Struct(">BH")
_DATA_HEAD = Struct(">IQ")
_ACK_HEAD = Struct(">IQB")
_RANGE = Struct(">QI")
_ANNOUNCE_HEAD = Struct(">IQ")
_HELLO_HEAD = Struct(">QQBBB")
_REFUSE_HEAD = Struct(">I")
_DATA_CHUNK = Struct(">BHIQ")

CHUNK_BYTES = _CHUNK.size
"""What a chunk takes besides its content."""
DATA_BYTES = _DATA_CHUNK.size
"""What a Data chunk takes besides its payload."""


def encode_unordered(body: bytes) -> bytes:
    return _CHUNK.pack(_UNORDERED, len(body)) + body


def encode_data(epoch: int, seq: int, payload: bytes) -> bytes:
    return _DATA_CHUNK.pack(_DATA, _DATA_HEAD.size + len(payload), epoch, seq) + payload


def encode_ack(epoch: int, next_seq: int, missing: Sequence[tuple[int, int]]) -> bytes:
    content = _ACK_HEAD.pack(epoch, next_seq, len(missing))
    for first, count in missing:
        content += _RANGE.pack(first, count)
    return _CHUNK.pack(_ACK, len(content)) + content


def encode_announce(epoch: int, next_seq: int) -> bytes:
    return _CHUNK.pack(_ANNOUNCE, _ANNOUNCE_HEAD.size) + _ANNOUNCE_HEAD.pack(epoch, next_seq)


def encode_hello(
    challenge: int, echo: int, wants_answer: bool, speaks: tuple[int, int] = SPEAKS
) -> bytes:
    content = _HELLO_HEAD.pack(challenge, echo, wants_answer, *speaks)
    return _CHUNK.pack(_HELLO, len(content)) + content


def encode_refuse(epoch: int) -> bytes:
    return _CHUNK.pack(_REFUSE, _REFUSE_HEAD.size) + _REFUSE_HEAD.pack(epoch)


def parse_chunks_untrusted(body: bytes) -> list[Chunk]:
    """The chunks of an opened body, all or none. Raises BadDatagram."""
    chunks: list[Chunk] = []
    position, end = 0, len(body)
    while position < end:
        start = position + CHUNK_BYTES
        if start > end:
            raise BadDatagram("chunk head")
        kind, length = _CHUNK.unpack_from(body, position)
        position = start + length
        parse = _PARSERS.get(kind)
        if parse is None:
            raise BadDatagram("chunk type")
        if position > end:
            raise BadDatagram("chunk length")
        chunks.append(parse(body, start, position))
    return chunks


def _parse_unordered(body: bytes, start: int, stop: int) -> Unordered:
    return Unordered(body[start:stop])


def _parse_data(body: bytes, start: int, stop: int) -> Data:
    if stop - start <= _DATA_HEAD.size:
        raise BadDatagram("data chunk")
    epoch, seq = _DATA_HEAD.unpack_from(body, start)
    return Data(epoch, seq, body[start + _DATA_HEAD.size : stop])


def _parse_ack(body: bytes, start: int, stop: int) -> Ack:
    if stop - start < _ACK_HEAD.size:
        raise BadDatagram("ack chunk")
    epoch, next_seq, count = _ACK_HEAD.unpack_from(body, start)
    start += _ACK_HEAD.size
    if count > RANGES_MAX or stop - start != count * _RANGE.size:
        raise BadDatagram("ack chunk")
    missing = tuple(_RANGE.iter_unpack(body[start:stop])) if count else ()
    return Ack(epoch, next_seq, missing)


def _parse_announce(body: bytes, start: int, stop: int) -> Announce:
    _expect(stop - start == _ANNOUNCE_HEAD.size, "announce chunk")
    return Announce(*_ANNOUNCE_HEAD.unpack_from(body, start))


def _parse_hello(body: bytes, start: int, stop: int) -> Hello:
    _expect(stop - start == _HELLO_HEAD.size, "hello chunk")
    challenge, echo, wants_answer, oldest, newest = _HELLO_HEAD.unpack_from(body, start)
    _expect(challenge != 0 and wants_answer <= 1 and 0 < oldest <= newest, "hello chunk")
    return Hello(challenge, echo, bool(wants_answer), (oldest, newest))


def _parse_refuse(body: bytes, start: int, stop: int) -> Refuse:
    _expect(stop - start == _REFUSE_HEAD.size, "refuse chunk")
    return Refuse(*_REFUSE_HEAD.unpack_from(body, start))


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise BadDatagram(what)


_PARSERS: dict[int, Callable[[bytes, int, int], Chunk]] = {
    _UNORDERED: _parse_unordered,
    _DATA: _parse_data,
    _ACK: _parse_ack,
    _ANNOUNCE: _parse_announce,
    _HELLO: _parse_hello,
    _REFUSE: _parse_refuse,
}
