"""Alarms are repeated, not poured out."""

from __future__ import annotations

from distinv.server.seldom import Seldom


def test_about_one_it_is_said_once_in_a_while() -> None:
    seldom = Seldom(100, 2)
    assert [seldom.may_say(7, now) for now in (0, 99, 100, 150, 200)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_about_too_many_nothing_is_said() -> None:
    seldom = Seldom(100, 2)
    assert [seldom.may_say(about, 0) for about in (7, 8, 9)] == [True, True, False]
    assert len(seldom) == 2
    assert seldom.may_say(7, 100), "known, and its time has come"
    assert seldom.may_say(9, 100), "8 is long ago"
    assert not seldom.may_say(8, 100)
    assert len(seldom) == 2
