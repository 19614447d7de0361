"""Wishes about the cluster itself that are sent again within one call."""

from __future__ import annotations

from random import Random

import pytest

from distinv import config
from distinv.client.calls import CallBook
from distinv.client.questions import Questions
from distinv.errors import DistinvError, NoLeader, NotFound
from distinv.wire.messages import Order, QueryFailed

CONFIG = config.test()
MINUTE = 60_000_000
UNKNOWN = "the leader knows no such server"


def unavailable(reason: str) -> DistinvError:
    return NoLeader(reason)


class Asker:
    """One order, and what comes of it."""

    def __init__(self, what: str) -> None:
        self.book, self.now = CallBook(), 0
        self.questions = Questions(
            book=self.book,
            random=Random(1),
            timing=CONFIG.timing,
            limits=CONFIG.limits,
            unavailable=unavailable,
        )
        self.number = self.questions.submit(b"", True, 0, MINUTE, (what, 5, False))

    def send(self) -> None:
        self.now += MINUTE // 10
        assert isinstance(self.questions.next_query(self.now), Order)

    def refuse(self, reason: str) -> None:
        self.questions.failed(QueryFailed(self.number, reason, UNKNOWN, 0, None), self.now)

    def error(self) -> DistinvError | None:
        (end,) = self.book.take()
        assert end.call == self.number
        return end.error


@pytest.mark.parametrize("what", ["remove", "leave"])
@pytest.mark.parametrize("reason", ["", "not_yet", "no_leader"])
def test_who_is_gone_when_it_is_asked_again_has_been_let_go(what: str, reason: str) -> None:
    """The answer was lost with the link, and the call ended with `unknown_server`."""
    asker = Asker(what)
    asker.send()
    if reason:
        asker.refuse(reason)
    else:
        asker.questions.rewind()
    asker.send()
    asker.refuse("unknown_server")
    assert asker.error() is None


@pytest.mark.parametrize("reason", ["not_leader", "overloaded"])
def test_who_was_never_taken_up_is_still_unknown(reason: str) -> None:
    asker = Asker("remove")
    asker.send()
    asker.refuse(reason)
    asker.send()
    asker.refuse("unknown_server")
    error = asker.error()
    assert isinstance(error, NotFound)
    assert UNKNOWN in str(error)


def test_nobody_is_promoted_who_is_not_there() -> None:
    asker = Asker("promote")
    asker.send()
    asker.questions.rewind()
    asker.send()
    asker.refuse("unknown_server")
    assert isinstance(asker.error(), NotFound)
