"""The stream: however it is cut, the same messages come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distinv.wire.stream import StreamReader, StreamWriter


@given(st.lists(st.binary(max_size=40), max_size=20), st.lists(st.integers(1, 60), min_size=1))
def test_any_cuts(messages: list[bytes], sizes: list[int]) -> None:
    writer, reader = StreamWriter(10_000), StreamReader(40)
    for message in messages:
        assert writer.push(message)
    assert writer.waiting_bytes == sum(4 + len(message) for message in messages)
    bodies: list[bytes] = []
    while writer.waiting_bytes:
        size = sizes[0]
        sizes = sizes[1:] + sizes[:1]
        before = writer.waiting_bytes
        segment = writer.cut(size)
        assert len(segment) == min(size, before)
        assert writer.waiting_bytes == before - len(segment)
        reader.feed(segment, bodies)
    assert bodies == messages
    assert all(type(body) is bytes for body in bodies)


def test_the_queue_is_bounded() -> None:
    writer = StreamWriter(100)
    assert writer.push(bytes(96))
    assert not writer.push(b"")
    writer.cut(4)
    assert writer.push(b"")


def test_a_message_beyond_the_bound_breaks_the_stream_before_it_is_kept() -> None:
    reader = StreamReader(10)
    bodies: list[bytes] = []
    reader.feed(b"\0\0\0\x02ok" + b"\0\0\0\x0bx", bodies)
    assert (bodies, reader.broken) == ([b"ok"], True)
    reader.feed(b"\0\0\0\x02no", bodies)
    assert bodies == [b"ok"]
    assert not reader._partial
