"""The reference client: what it does about each way in which a call may end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from distinv import InventoryClient
from distinv.errors import (
    DistinvError,
    InsufficientStock,
    NoLeader,
    OutcomeUnknown,
    UnknownItem,
)
from distinv.model import Receipt, datetime_of

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import till

pytestmark = pytest.mark.anyio

RECEIPT = Receipt(7, datetime_of(0))
SHORT = InsufficientStock("Sold out.", seq=8)
UNKNOWN = OutcomeUnknown(idempotency_key="5:1")


class Scripted:
    """A client whose calls end as written down, one after the other."""

    def __init__(self, *ends: Receipt | DistinvError, resolved: tuple[object, ...] = ()) -> None:
        self._ends: Iterator[Receipt | DistinvError] = iter(ends)
        self._resolved = iter(resolved)
        self.asked: list[str] = []

    async def ship(self) -> Receipt:
        end = next(self._ends)
        if isinstance(end, DistinvError):
            raise end
        return end

    async def resolve(self, key: str) -> object:
        self.asked.append(key)
        end = next(self._resolved)
        if isinstance(end, NoLeader | OutcomeUnknown):
            raise end
        return end

    async def settle(self, patience_s: float = 60.0) -> till.Settled:
        return await till.settle(cast(InventoryClient, self), self.ship, patience_s)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(till, "PAUSE_S", 0)


async def test_a_receipt_and_a_refusal_are_final() -> None:
    assert await Scripted(RECEIPT).settle() == till.Settled(RECEIPT, 0)
    found = await Scripted(SHORT).settle()
    assert found.outcome is SHORT
    assert not found.accepted


async def test_what_was_certainly_not_applied_is_sent_again() -> None:
    found = await Scripted(NoLeader(), NoLeader(), RECEIPT).settle()
    assert found == till.Settled(RECEIPT, 0)


async def test_an_unknown_outcome_is_asked_for_until_somebody_knows() -> None:
    shop = Scripted(UNKNOWN, resolved=(NoLeader(), UNKNOWN, RECEIPT))
    assert await shop.settle() == till.Settled(RECEIPT, 1)
    assert shop.asked == ["5:1"] * 3


async def test_an_unknown_outcome_may_turn_out_a_refusal() -> None:
    found = await Scripted(UNKNOWN, resolved=(SHORT,)).settle()
    assert found.outcome is SHORT
    assert found.unknown == 1


async def test_only_what_had_no_effect_is_sent_again() -> None:
    shop = Scripted(UNKNOWN, UNKNOWN, RECEIPT, resolved=(None, None))
    assert await shop.settle() == till.Settled(RECEIPT, 2)


async def test_a_wrong_request_is_the_callers_affair() -> None:
    with pytest.raises(UnknownItem):
        await Scripted(UnknownItem()).settle()


async def test_patience_ends() -> None:
    with pytest.raises(NoLeader):
        await Scripted(NoLeader()).settle(patience_s=-1.0)
    with pytest.raises(OutcomeUnknown):
        await Scripted(UNKNOWN, resolved=(NoLeader(),)).settle(patience_s=-1.0)
