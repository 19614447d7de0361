"""What the builders accept and refuse, before anything is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest

from distinv import errors
from distinv.errors import (
    DistinvError,
    InvalidLocation,
    InvalidQuantity,
    InvalidRequest,
    InvalidSku,
    OutcomeUnknown,
    TooManyLines,
    Unavailable,
)
from distinv.inventory import calls
from distinv.inventory.commands import (
    Refused,
    Trimmed,
    Voided,
    decode_command_untrusted,
    encode_outcome,
    session_key,
)
from distinv.inventory.queries import Failure, encode_answer
from distinv.inventory.values import class_of
from distinv.model import Line

BUILDERS = {
    "receive": lambda lines: calls.receive(lines),
    "ship": lambda lines: calls.ship(lines),
    "purchase": lambda lines: calls.purchase(lines),
    "adjust": lambda lines: calls.adjust(lines),
    "transfer": lambda lines: calls.transfer(lines, "main", "back"),
}
every_builder = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


class Index:
    """Stands for an int exactly, as a data frame's integers do."""

    def __index__(self) -> int:
        return 3


class Sku(StrEnum):
    TEA = "tea"


@every_builder
@pytest.mark.parametrize("quantity", [0, 10**12 + 1, 1.0, True, "1", None, float("nan")])
def test_quantities(build: Any, quantity: Any) -> None:
    with pytest.raises(InvalidQuantity):
        build({"A": quantity})


def test_only_adjust_takes_negative_quantities() -> None:
    calls.adjust({"A": -1})
    calls.adjust("A", -(10**12))
    for build in (calls.receive, calls.ship, calls.purchase):
        with pytest.raises(InvalidQuantity):
            build({"A": -1})


@every_builder
@pytest.mark.parametrize("sku", ["", "x" * 129, "a\0b", "\ud800", None, 7, b"A"])
def test_skus(build: Any, sku: Any) -> None:
    with pytest.raises(InvalidSku):
        build({sku: 1})


@pytest.mark.parametrize("sku", ["x" * 128, " ", "\U0001f344" * 128, "cafe\u0301", "a\nb"])
def test_any_other_text_is_a_sku(sku: str) -> None:
    call = calls.receive({sku: 1})
    (operation,) = decode_command_untrusted(call.encode()).operations
    assert operation == call.operations[0]


@pytest.mark.parametrize("name", ["", "x" * 129, "a\0", "\udfff", None, 1])
def test_locations(name: Any) -> None:
    for build in (
        lambda: calls.receive({"A": 1}, location=name),
        lambda: calls.transfer({"A": 1}, "main", name),
        lambda: calls.put_location(name),
        lambda: calls.delete_location(name),
        lambda: calls.level("A", name),
    ):
        with pytest.raises(InvalidLocation):
            build()


def test_a_transfer_has_two_ends_and_its_lines_none() -> None:
    with pytest.raises(InvalidLocation):
        calls.transfer({"A": 1}, "main", "main")
    with pytest.raises(InvalidLocation):
        calls.transfer([Line("A", 1, "main")], "main", "back")


@every_builder
@pytest.mark.parametrize("lines", [{}, [], "A", [("A", 1)], 5, None, b"A"])
def test_lines(build: Any, lines: Any) -> None:
    with pytest.raises(InvalidRequest):
        build(lines)


@every_builder
def test_too_many_lines(build: Any) -> None:
    build({str(number): 1 for number in range(5_000)})
    with pytest.raises(TooManyLines):
        build({str(number): 1 for number in range(5_001)})


def test_a_command_fits_one_log_entry() -> None:
    call = calls.receive({"\U0001f344" * 120 + str(number): 1 for number in range(5_000)})
    with pytest.raises(TooManyLines):
        call.encode()


def test_whatever_stands_for_an_int_or_a_str_exactly_is_taken() -> None:
    call = calls.receive({Sku.TEA: Index()})  # type: ignore[dict-item]
    (operation,) = decode_command_untrusted(call.encode()).operations
    assert operation == calls.receive({"tea": 3}).operations[0]


def test_adjust_takes_one_form_or_the_other() -> None:
    with pytest.raises(InvalidRequest):
        calls.adjust("A")
    with pytest.raises(InvalidRequest):
        calls.adjust({"A": 1}, 1)
    with pytest.raises(InvalidQuantity):
        calls.adjust("A", 0)


@pytest.mark.parametrize(
    "options",
    [
        {"reason": "x" * 65},
        {"reason": 1},
        {"reference": "x" * 256},
        {"reference": "a\0"},
        {"note": "x" * 2_001},
        {"note": "\ud800"},
        {"occurred_at": datetime(2010, 12, 1)},
        {"occurred_at": "2010-12-01"},
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 129},
        {"idempotency_key": 3},
        {"idempotency_key": session_key(4096, 1)},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        calls.receive({"A": 1}, **options)
    with pytest.raises(InvalidRequest):
        calls.put_item("A", **options)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "x" * 256},
        {"unit": "x" * 65},
        {"scale": -1},
        {"scale": 13},
        {"scale": True},
        {"attributes": [1]},
        {"attributes": {1: 1}},
        {"attributes": {"x": 1.5}},
        {"attributes": {"x": [1]}},
        {"attributes": {"x": 2**63}},
        {"attributes": {"x": "y" * 17_000}},
        {"discontinued": 1},
        {"if_version": -1},
    ],
)
def test_items(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        calls.put_item("A", **options)


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 1.0, None])
def test_pages(limit: Any) -> None:
    for build in (calls.list_items, calls.list_levels, calls.ledger):
        with pytest.raises(InvalidRequest):
            build(limit=limit)


def test_questions() -> None:
    with pytest.raises(InvalidSku):
        calls.level("")
    with pytest.raises(InvalidSku):
        calls.levels(["A", ""])
    with pytest.raises(InvalidRequest):
        calls.levels([("A", "main", "x")])  # type: ignore[list-item]
    with pytest.raises(TooManyLines):
        calls.levels([str(number) for number in range(5_001)])
    with pytest.raises(InvalidRequest):
        calls.ledger(since=datetime(2010, 12, 1))
    with pytest.raises(InvalidRequest):
        calls.ledger(after="A")
    with pytest.raises(InvalidRequest):
        calls.list_items(after=(1, 2))
    calls.ledger(since=datetime(2010, 12, 1, tzinfo=UTC), after=(3, 1))


# --- what comes back --------------------------------------------------------------------------


def test_a_refusal_raises_the_class_of_its_code_with_its_seq() -> None:
    call = calls.receive({"A": 1})
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    ordered = (errors.InvalidRequest, errors.NotFound, errors.Rejected)
    for kind in kinds:
        if issubclass(kind, ordered):
            refused = encode_outcome(Refused(7, 0, kind.code, "because"))
            with pytest.raises(kind, match="because") as caught:
                call.value(refused)
            assert type(caught.value) is kind
            assert caught.value.seq == 7
            assert class_of(kind.code) is kind


def test_a_code_from_the_future_is_a_rejection() -> None:
    with pytest.raises(errors.Rejected, match="later"):
        calls.receive({"A": 1}).value(encode_outcome(Refused(7, 0, "from_the_future", "later")))


def test_a_trimmed_outcome_still_tells_seq_and_code() -> None:
    trimmed = encode_outcome(Trimmed(9, 0, "", True))
    receipt = calls.receive({"A": 1}).value(trimmed, "k")
    assert (receipt.seq, receipt.levels, receipt.replayed) == (9, (), True)
    assert receipt.idempotency_key == "k"
    with pytest.raises(OutcomeUnknown) as caught:
        calls.put_item("A").value(trimmed, "k")
    assert (caught.value.seq, caught.value.idempotency_key) == (9, "k")
    with pytest.raises(errors.InsufficientStock) as short:
        calls.ship({"A": 1}).value(encode_outcome(Trimmed(9, 0, "insufficient_stock")))
    assert short.value.shortages == ()


def test_a_voided_number_was_certainly_not_applied() -> None:
    with pytest.raises(Unavailable):
        calls.receive({"A": 1}).value(encode_outcome(Voided(0)))


def test_bytes_that_are_no_answer() -> None:
    with pytest.raises(DistinvError):
        calls.receive({"A": 1}).value(b"\xc1")
    with pytest.raises(DistinvError):
        calls.level("A").value(b"")
    with pytest.raises(errors.UnknownItem):
        calls.level("A").value(encode_answer(Failure(3, "unknown_item", "no")))
