"""Wishes about the cluster itself: who is asked, who waits, and who is told what."""

from __future__ import annotations

import pytest

from distinv.core import events
from distinv.entry import NodeId
from distinv.server.front import Situation
from distinv.server.orders import Orders
from distinv.wire.messages import Answer, Order, QueryFailed

ANNE, BERT = NodeId(1), NodeId(2)
"""Clients."""
SERVER = NodeId(30)
LEADS = Situation(True, False, True, SERVER, None)
ADDRESS = ("10.0.0.4", 4747)
FOLLOWS = Situation(False, False, True, NodeId(31), ADDRESS)
ALONE = Situation(False, False, True, None, None)


@pytest.fixture
def orders() -> Orders:
    return Orders(2)


@pytest.mark.parametrize(
    ("what", "wish"),
    [
        ("promote", events.Order(1, SERVER, True, confirmed=False)),
        ("remove", events.Order(1, SERVER, False, confirmed=False)),
        ("leave", events.Order(1, SERVER, False, True, confirmed=False)),
        ("transfer", events.Transfer(SERVER, 1)),
    ],
)
def test_the_leader_asks_its_core(orders: Orders, what: str, wish: events.Event) -> None:
    assert orders.on_order(ANNE, Order(7, what, SERVER), LEADS) == wish
    assert orders.take_messages() == []
    orders.on_answered(events.OrderAnswered(1, True, ""), LEADS)
    assert orders.take_messages() == [(ANNE, Answer(7, b""))]
    assert orders.take_messages() == []


def test_a_transfer_to_nobody_is_one_to_the_best(orders: Orders) -> None:
    assert orders.on_order(ANNE, Order(7, "transfer", 0), LEADS) == events.Transfer(None, 1)


@pytest.mark.parametrize(
    ("situation", "failed"),
    [
        (FOLLOWS, QueryFailed(7, "not_leader", "not_leader", 31, ADDRESS)),
        (ALONE, QueryFailed(7, "no_leader", "no_leader", 0, None)),
    ],
)
def test_others_say_who_leads(orders: Orders, situation: Situation, failed: QueryFailed) -> None:
    assert orders.on_order(ANNE, Order(7, "promote", SERVER), situation) is None
    assert orders.take_messages() == [(ANNE, failed)]


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ("not_yet", "not_yet"),
        ("no_leader", "no_leader"),
        ("overloaded", "overloaded"),
        ("5 servers vote already", "invalid_request"),
    ],
)
def test_whoever_may_ask_again_is_told_so(orders: Orders, detail: str, reason: str) -> None:
    orders.on_order(ANNE, Order(7, "promote", SERVER), LEADS)
    orders.on_answered(events.OrderAnswered(1, False, detail), LEADS)
    assert orders.take_messages() == [(ANNE, QueryFailed(7, reason, detail, SERVER, None))]


def test_that_nobody_knows_a_server_is_said_in_words(orders: Orders) -> None:
    orders.on_order(ANNE, Order(7, "promote", 99), LEADS)
    orders.on_answered(events.OrderAnswered(1, False, "unknown_server"), LEADS)
    words = "the leader knows no such server: see distinv status"
    refused = QueryFailed(7, "unknown_server", words, SERVER, None)
    assert orders.take_messages() == [(ANNE, refused)]


def test_few_wait_at_the_same_time(orders: Orders) -> None:
    for number in (1, 2, 3):
        orders.on_order(ANNE, Order(number, "promote", SERVER), LEADS)
    refused = QueryFailed(3, "overloaded", "overloaded", SERVER, None)
    assert orders.take_messages() == [(ANNE, refused)]
    orders.on_answered(events.OrderAnswered(1, True, ""), LEADS)
    assert orders.on_order(BERT, Order(4, "promote", SERVER), LEADS) is not None
    orders.on_answered(events.OrderAnswered(3, True, ""), LEADS)
    assert orders.take_messages() == [(ANNE, Answer(1, b"")), (BERT, Answer(4, b""))]


def test_an_order_that_there_is_not_is_told_in_words(orders: Orders) -> None:
    assert orders.on_order(ANNE, Order(7, "rule the world for ever", SERVER), LEADS) is None
    detail = "there is no order 'rule the world for e'"
    failed = QueryFailed(7, "invalid_request", detail, SERVER, None)
    assert orders.take_messages() == [(ANNE, failed)]


def test_an_answer_that_nobody_waits_for_is_nobodys(orders: Orders) -> None:
    orders.on_answered(events.OrderAnswered(9, True, ""), LEADS)
    assert orders.take_messages() == []
