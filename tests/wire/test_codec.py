"""Every message survives the wire, and no field leaves its bounds."""

from __future__ import annotations

from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.entry import (
    NO_HASH,
    ORIGIN,
    Ballot,
    Entry,
    EntryKind,
    SnapshotHead,
    Voter,
    VoterSet,
    make_entry,
)
from distinv.errors import BadDatagram
from distinv.wire.codec import ITEMS_MAX, TEXT_CHARS_MAX, _plan, decode_untrusted, encode
from distinv.wire.messages import (
    Append,
    Beacon,
    Heartbeat,
    Message,
    NotTaken,
    Ping,
    Promise,
    ReadIndexReply,
    Seek,
    SnapshotPart,
    SnapshotPull,
)

CLASSES = get_args(Message)
BALLOT = Ballot(3, 7)
ENTRY = make_entry(ORIGIN, BALLOT, 10, EntryKind.COMMANDS, b"payload")


def example(hint: Any, name: str = "", **given: Any) -> Any:
    """A value of a message field's type, the same every time; its fields may be `given`."""
    arguments = get_args(hint)
    if hint is bytes:
        return NO_HASH if name in ("hash", "digest") else b"bytes"
    if hint in (int, str, bool):
        return {int: 5, str: "text", bool: True}[hint]
    if get_origin(hint) in (Union, UnionType):
        return example(arguments[0])
    if get_origin(hint) is tuple:
        items = arguments[:1] if arguments[1:] == (...,) else arguments
        return tuple(example(item) for item in items)
    fields = {name: example(field, name) for name, field in get_type_hints(hint).items()}
    return hint(**{**fields, **given})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_message_survives(kind: Any) -> None:
    message = example(kind)
    assert decode_untrusted(encode(message)) == message


def test_tags_are_not_shared() -> None:
    tags = [kind.__struct_config__.tag for kind in CLASSES]
    assert len(set(tags)) == len(tags)


def test_later_fields_of_a_newer_version_are_skipped() -> None:
    assert decode_untrusted(msgspec.msgpack.encode([59, 8, "new"])) == Ping(8)


def append_of(**changes: Any) -> Append:
    return Append(BALLOT, ORIGIN, (ENTRY, msgspec.structs.replace(ENTRY, **changes)), 0, 0)


OUT_OF_BOUNDS: dict[str, Message] = {
    "negative": Ping(-1),
    "64 bits": Ping(1 << 63),
    "in a ballot": Heartbeat(Ballot(-1, 1), 0, 0, 0),
    "in an entry": append_of(index=-1),
    "entry kind": append_of(kind=256),
    "entry hash": append_of(hash=b"short"),
    "position hash": Promise(BALLOT, ORIGIN._replace(hash=b""), 0, 0, ()),
    "digest": SnapshotPull(b"short", 0, 0),
    "digest of a head": SnapshotPart(example(SnapshotHead, digest=b"x" * 60_000), 0, b""),
    "voter of a head": SnapshotPart(
        example(SnapshotHead, voters=VoterSet("shop", 1, (Voter(-1, "anne"),))), 0, b""
    ),
    "size of a head": SnapshotPart(example(SnapshotHead, size_bytes=1 << 63), 0, b""),
    "long text": Seek("x" * (TEXT_CHARS_MAX + 1)),
    "port": NotTaken(1, 1, 1, "", "", 1, ("host", 70_000)),
    "no port": NotTaken(1, 1, 1, "", "", 1, ("host", 0)),
    "no host": NotTaken(1, 1, 1, "", "", 1, ("", 1)),
    "items": Beacon("", 0, "", 0, None, BALLOT, 0, 0, (1,) * (ITEMS_MAX + 1)),
    "item": Beacon("", 0, "", 0, None, BALLOT, 0, 0, (1, -1)),
    "below -1": ReadIndexReply(1, BALLOT, -2),
}


@pytest.mark.parametrize("name", OUT_OF_BOUNDS)
def test_bounds(name: str) -> None:
    with pytest.raises(BadDatagram):
        decode_untrusted(encode(OUT_OF_BOUNDS[name]))


def test_a_message_with_a_field_that_nothing_bounds_cannot_be_defined() -> None:
    class Temperature(msgspec.Struct):
        celsius: float

    with pytest.raises(TypeError, match="messages cannot hold"):
        _plan(Temperature)


def test_nothing_may_have_been_begun() -> None:
    first = SnapshotPull(b"", 0, 5)
    assert decode_untrusted(encode(first)) == first


def test_a_read_index_may_be_refused() -> None:
    refusal = ReadIndexReply(1, BALLOT, -1)
    assert decode_untrusted(encode(refusal)) == refusal


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x93\x3b\x05" + b"\x91" * 100_000,  # nested deeper than any stack
        b"\xdd\xff\xff\xff\xff\x3b\x05",  # an array of four thousand million
        encode(Ping(1)) + b"\x00",
        b"\x92\x63\x01",  # no such tag
        b"\x92\x01\xa2\xff\xff",  # not UTF-8
    ],
)
def test_garbage(body: bytes) -> None:
    with pytest.raises(BadDatagram):
        decode_untrusted(body)


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    try:
        decode_untrusted(body)
    except BadDatagram:
        pass


@settings(max_examples=500)
@given(st.sampled_from(CLASSES), st.data())
def test_damaged_messages(kind: Any, data: st.DataObject) -> None:
    body = bytearray(encode(example(kind)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode_untrusted(bytes(body))
    except BadDatagram:
        return
    assert decode_untrusted(encode(message)) == message


def test_what_passes_can_be_hashed() -> None:
    """The chain hash packs fields into fixed widths: no value that passes may break it."""
    largest = Entry(2**63 - 1, Ballot(2**63 - 1, 2**63 - 1), 2**63 - 1, 255, b"", NO_HASH)
    append = decode_untrusted(encode(Append(BALLOT, ORIGIN, (largest,), 0, 0)))
    assert isinstance(append, Append)
    (entry,) = append.entries
    position = ORIGIN._replace(index=entry.index - 1)
    assert make_entry(position, entry.ballot, entry.time_us, entry.kind, b"").hash != NO_HASH
