"""Bytes in, commands out: nothing but InvalidRequest may come of bad ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.config import Limits
from distinv.errors import InvalidQuantity, InvalidRequest, InvalidSku, TooManyLines
from distinv.inventory import calls
from distinv.inventory.commands import (
    decode_command_untrusted,
    decode_outcome,
    parse_session_key,
    session_key,
)
from distinv.inventory.keys import payload_hash
from distinv.inventory.queries import decode_answer, decode_query_untrusted
from distinv.model import Line

SAMPLES: list[calls.Call[Any]] = [
    calls.put_item("A", name="x", attributes={"k": 1}),
    calls.delete_item("A", if_version=3),
    calls.put_location("back"),
    calls.delete_location("back"),
    calls.receive([Line("A", 1), Line("B", 2, "back")], reference="PO", note="n"),
    calls.ship({"A": 1}, idempotency_key="k"),
    calls.adjust({"A": -1}),
    calls.set_on_hand("A", 1, if_on_hand=0),
    calls.transfer({"A": 1}, "main", "back"),
    calls.execute([calls.receive({"A": 1}), calls.ship({"A": 1})]),
]
QUESTIONS: list[calls.Ask[Any]] = [
    calls.level("A"),
    calls.get_item("A"),
    calls.list_items("A", "AB", 5),
    calls.list_locations(),
    calls.list_levels("A", "main", 3, ("A", "main"), 5),
    calls.available("A", locations=["main"]),
    calls.ledger(sku="A", since=3, after=(4, 0)),
    calls.resolve("k"),
    calls.digest(),
]
ENCODED = [call.encode() for call in SAMPLES] + [ask.encode() for ask in QUESTIONS]


@pytest.mark.parametrize("call", SAMPLES)
def test_commands_survive_the_trip(call: calls.Call[Any]) -> None:
    command = decode_command_untrusted(call.encode())
    assert command.operations == call.operations
    assert command.key == (call.idempotency_key or "")


@pytest.mark.parametrize("ask", QUESTIONS)
def test_questions_survive_the_trip(ask: calls.Ask[Any]) -> None:
    assert decode_query_untrusted(ask.encode()) == ask.query


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_noise(data: bytes) -> None:
    for decode in (decode_command_untrusted, decode_query_untrusted, decode_outcome, decode_answer):
        try:
            decode(data)
        except InvalidRequest:
            pass


@settings(max_examples=300)
@given(st.data())
def test_damage(data: st.DataObject) -> None:
    """A byte changed, cut off or put in: a command that passes the checks, or InvalidRequest."""
    sample = data.draw(st.sampled_from(ENCODED))
    at = data.draw(st.integers(0, len(sample) - 1))
    damaged = data.draw(
        st.sampled_from(
            [
                sample[:at],
                sample[:at] + data.draw(st.binary(min_size=1, max_size=3)) + sample[at:],
                sample[:at] + data.draw(st.binary(min_size=1, max_size=1)) + sample[at + 1 :],
            ]
        )
    )
    for decode in (decode_command_untrusted, decode_query_untrusted):
        try:
            decode(damaged)
        except InvalidRequest:
            pass


NESTED = b"\x91" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        NESTED,
        b"\x92\x91\x94\x05\x91\x93\xa1A\x01\xc0\xa4main" + NESTED,
        b"\x92\x91\x95\x05\x91\x93\xa1A\x01\xc0\xa4main\x94\xa0\xa0\xa0\xc0" + NESTED,
        b"\xdd\xff\xff\xff\xff",
        msgspec.msgpack.encode([[[99, "A"]], ""]),
        msgspec.msgpack.encode([[], ""]),
    ],
)
def test_what_is_no_command(data: bytes) -> None:
    """Deep nesting must not be walked: how deep Python can go differs from call to call."""
    with pytest.raises(InvalidRequest) as caught:
        decode_command_untrusted(data)
    assert type(caught.value) is InvalidRequest


ABOUT = ["", "", "", None]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ([["A", 0, None]], InvalidQuantity),
        ([["A", -1, None]], InvalidQuantity),
        ([["A", 2**64 - 1, None]], InvalidQuantity),
        ([["A", 1.5, None]], InvalidRequest),
        ([["A", True, None]], InvalidRequest),
        ([["", 1, None]], InvalidSku),
        ([["\0", 1, None]], InvalidSku),
        ([], InvalidRequest),
        ([["A", 1, None]] * 5_001, TooManyLines),
    ],
)
def test_lines_that_no_builder_makes(lines: list[Any], error: type[Exception]) -> None:
    data = msgspec.msgpack.encode([[[5, lines, "main", ABOUT]], ""])
    with pytest.raises(error):
        decode_command_untrusted(data)


def test_a_lone_surrogate_cannot_even_be_decoded() -> None:
    data = msgspec.msgpack.encode([[[5, [["???", 1, None]], "main", ABOUT]], ""])
    with pytest.raises(InvalidRequest):
        decode_command_untrusted(data.replace(b"???", b"\xed\xa0\x80"))


def test_the_size_of_a_command_is_bounded() -> None:
    with pytest.raises(TooManyLines):
        decode_command_untrusted(bytes(2_000), Limits(batch_bytes=1_000))


# --- keys -------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**60))
def test_session_keys(session: int, number: int) -> None:
    assert parse_session_key(session_key(session, number)) == (session, number)


@pytest.mark.parametrize(
    "key",
    [
        "",
        ":",
        "s:1",
        "12:34",
        "import:7",
        "s" + "0" * 16,
        "s" + "0" * 16 + ":x",
        "s" + "0" * 16 + ":²",
        "S" + "0" * 16 + ":1",
        "s" + "F" * 16 + ":1",
    ],
)
def test_other_keys(key: str) -> None:
    assert parse_session_key(key) is None


def hash_of(call: calls.Call[Any]) -> bytes:
    return payload_hash(decode_command_untrusted(call.encode()))


def test_the_payload_is_summed_and_sorted_and_without_its_note() -> None:
    first = calls.ship([Line("A", 1), Line("B", 2), Line("A", 1, "main")], note="x")
    assert hash_of(first) == hash_of(calls.ship({"B": 2, "A": 2}, note="y"))
    elsewhere = calls.ship([Line("A", 2, "back"), Line("B", 2, "back")])
    assert hash_of(elsewhere) == hash_of(calls.ship({"B": 2, "A": 2}, location="back"))


def test_everything_else_belongs_to_the_payload() -> None:
    different = [
        calls.ship({"A": 1}),
        calls.ship({"A": 2}),
        calls.ship({"B": 1}),
        calls.ship({"A": 1}, location="back"),
        calls.ship({"A": 1}, reason="sold"),
        calls.ship({"A": 1}, reference="1"),
        calls.receive({"A": 1}),
        calls.adjust({"A": 1}),
        calls.transfer({"A": 1}, "main", "back"),
        calls.transfer({"A": 1}, "main", "other"),
        calls.transfer({"A": 1}, "back", "main"),
        calls.set_on_hand("A", 1, force=True),
        calls.set_on_hand("A", 1, if_on_hand=1),
        calls.set_on_hand("A", 1, if_version=1),
        calls.put_item("A"),
        calls.put_item("A", name=""),
        calls.put_item("A", attributes={"x": 1}),
        calls.put_item("A", attributes={"x": 1, "a": 1}),
        calls.delete_item("A"),
        calls.put_location("A"),
        calls.put_location("A", sellable=False),
        calls.delete_location("A"),
        calls.execute([calls.ship({"A": 1}), calls.ship({"A": 1})]),
    ]
    assert len({hash_of(call) for call in different}) == len(different)
