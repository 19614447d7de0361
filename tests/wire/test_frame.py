"""Headers and chunks: every kind survives, every damage is a BadDatagram."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.entry import NodeId
from distinv.errors import BadDatagram
from distinv.wire.frame import (
    CHUNK_BYTES,
    DATA_BYTES,
    DATAGRAM_BYTES_MAX,
    HEADER_BYTES,
    RANGES_MAX,
    Ack,
    Announce,
    Chunk,
    Data,
    Header,
    Hello,
    Refuse,
    Unordered,
    encode_ack,
    encode_announce,
    encode_data,
    encode_header,
    encode_hello,
    encode_refuse,
    encode_unordered,
    parse_chunks_untrusted,
    parse_header_untrusted,
    version_untrusted,
)

U32, U64 = (1 << 32) - 1, (1 << 64) - 1
HEADER = Header(1, b"\1\2\3\4", U64, NodeId((1 << 63) - 1), U64, 0, U64)
MOST_RANGES = tuple((10 * i, i + 1) for i in range(RANGES_MAX))

CHUNKS: dict[str, tuple[bytes, Chunk]] = {
    "unordered": (encode_unordered(b"body"), Unordered(b"body")),
    "unordered, empty": (encode_unordered(b""), Unordered(b"")),
    "data": (encode_data(U32, U64, b"payload"), Data(U32, U64, b"payload")),
    "ack": (encode_ack(1, 2, []), Ack(1, 2, ())),
    "ack, gaps": (encode_ack(U32, U64, MOST_RANGES), Ack(U32, U64, MOST_RANGES)),
    "announce": (encode_announce(U32, U64), Announce(U32, U64)),
    "hello": (encode_hello(U64, 0, True), Hello(U64, 0, True)),
    "hello, answer": (encode_hello(1, U64, False), Hello(1, U64, False)),
    "hello, later": (encode_hello(1, 1, True, (2, 255)), Hello(1, 1, True, (2, 255))),
    "refuse": (encode_refuse(U32), Refuse(U32)),
}
each_chunk = pytest.mark.parametrize("name", CHUNKS)


def test_header_survives() -> None:
    data = encode_header(HEADER)
    assert len(data) == HEADER_BYTES
    assert version_untrusted(data) == 1
    assert parse_header_untrusted(data + b"body") == HEADER


def test_header_bytes_do_not_change_between_versions() -> None:
    header = Header(0, b"\1\2\3\4", 5, NodeId(6), 7, 8, 9)
    numbers = "".join(f"{number:016x}" for number in (5, 6, 7, 8, 9))
    assert encode_header(header).hex() == "6449" + "01" + "00" + "01020304" + numbers


@pytest.mark.parametrize(
    "header",
    [
        HEADER._replace(sender=NodeId(0)),
        HEADER._replace(sender=NodeId(1 << 63)),
        HEADER._replace(sender_boot=0),
        HEADER._replace(counter=0),
    ],
)
def test_impossible_headers(header: Header) -> None:
    with pytest.raises(BadDatagram):
        parse_header_untrusted(encode_header(header))


def test_not_ours() -> None:
    data = encode_header(HEADER)
    for wrong in (b"", data[:-1], b"XX" + data[2:], data + bytes(DATAGRAM_BYTES_MAX)):
        with pytest.raises(BadDatagram):
            version_untrusted(wrong)
    another = data[:2] + b"\2" + data[3:]
    assert version_untrusted(another) == 2
    with pytest.raises(BadDatagram, match="version"):
        parse_header_untrusted(another)


@each_chunk
def test_chunk_survives(name: str) -> None:
    data, chunk = CHUNKS[name]
    assert parse_chunks_untrusted(data) == [chunk]


def test_chunks_follow_one_another() -> None:
    body = b"".join(data for data, _ in CHUNKS.values())
    assert parse_chunks_untrusted(body) == [chunk for _, chunk in CHUNKS.values()]
    assert parse_chunks_untrusted(b"") == []


@each_chunk
def test_cut_short(name: str) -> None:
    data, _ = CHUNKS[name]
    for length in range(1, len(data)):
        with pytest.raises(BadDatagram):
            parse_chunks_untrusted(data[:length])


@pytest.mark.parametrize("name", [name for name in CHUNKS if not name.startswith(("un", "data"))])
def test_a_byte_too_much_or_too_little(name: str) -> None:
    """The length of a chunk is also that of its content."""
    data, _ = CHUNKS[name]
    content = data[CHUNK_BYTES:]
    for wrong in (content + b"\0", content[:-1]):
        with pytest.raises(BadDatagram):
            parse_chunks_untrusted(data[:1] + len(wrong).to_bytes(2, "big") + wrong)


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x00\x00",  # chunk types start at 1
        b"\x07\x00\x00",
        encode_data(1, 1, b""),  # a segment is never empty
        encode_ack(1, 1, [(1, 1)] * (RANGES_MAX + 1)),
        encode_hello(0, 1, True),  # 0 is no challenge
        encode_hello(1, 1, True)[:-3] + b"\x02\x01\x01",
        encode_hello(1, 1, True, (0, 1)),  # versions start at 1
        encode_hello(1, 1, True, (3, 2)),
    ],
)
def test_impossible_chunks(body: bytes) -> None:
    with pytest.raises(BadDatagram):
        parse_chunks_untrusted(body)


def test_data_bytes() -> None:
    assert len(encode_data(1, 1, b"payload")) == DATA_BYTES + len(b"payload")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for parse in (version_untrusted, parse_header_untrusted, parse_chunks_untrusted):
        try:
            parse(data)
        except BadDatagram:
            pass


@settings(max_examples=200)
@given(st.lists(st.sampled_from(sorted(CHUNKS)), min_size=1, max_size=4), st.data())
def test_damaged_chunks(names: list[str], data: st.DataObject) -> None:
    body = bytearray(b"".join(CHUNKS[name][0] for name in names))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        chunks = parse_chunks_untrusted(bytes(body))
    except BadDatagram:
        return
    for chunk in chunks:
        if isinstance(chunk, Ack):
            assert len(chunk.missing) <= RANGES_MAX
