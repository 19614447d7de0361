"""The session table by itself: pure, with invented stamps and times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distinv.config import Limits
from distinv.core.sessions import Admission, SessionTable, decode_session, encode_session

DAY_US = 24 * 3600 * 1_000_000
LIMITS = Limits(sessions_max=3, session_window=4, session_results_bytes=20)


class Driver:
    """Stamps every call with the next place in the log."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.table = SessionTable(limits)
        self.stamp = 0
        self.now_us = 0

    def open(self, nonce: int) -> int:
        self.stamp += 1
        return self.table.open(nonce, "name", self.stamp, self.now_us)

    def send(
        self, session: int, number: int, lowest: int = 0, result: bytes = b"result"
    ) -> Admission:
        self.stamp += 1
        admission = self.table.admit(session, number, lowest, self.stamp, self.now_us)
        if admission is Admission.TAKE:
            fits = self.table.has_room(session, len(result))
            self.table.record(session, result if fits else b"-")
        self.table.check()
        return admission


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_numbers_are_taken_once_and_in_order(driver: Driver) -> None:
    session = driver.open(1)
    assert driver.send(session, 2) is Admission.GAP
    assert driver.send(session, 1, result=b"first") is Admission.TAKE
    assert driver.send(session, 1, result=b"other") is Admission.DUPLICATE
    assert driver.table.result(session, 1) == b"first"
    assert driver.send(session, 2) is Admission.TAKE
    assert driver.send(session, 4) is Admission.GAP
    assert driver.send(session, 0) is Admission.DUPLICATE
    assert driver.send(session, -5) is Admission.DUPLICATE
    assert driver.send(session, 2**64 - 1) is Admission.GAP
    assert driver.send(99, 1) is Admission.EXPIRED


def test_the_same_nonce_gets_the_same_session_while_it_lives(driver: Driver) -> None:
    session = driver.open(1)
    assert driver.open(2) != session
    assert driver.open(1) == session
    assert driver.table.of_nonce(1) == session
    driver.table.close(session)
    assert driver.table.of_nonce(1) is None
    assert driver.open(1) != session


def test_answered_results_are_dropped(driver: Driver) -> None:
    session = driver.open(1)
    for number in (1, 2, 3):
        driver.send(session, number)
    driver.send(session, 4, lowest=3)
    assert [driver.table.result(session, number) for number in (1, 2, 3, 4)] == [
        None,
        None,
        b"result",
        b"result",
    ]
    driver.send(session, 4, lowest=2**64 - 1)
    assert driver.table.result(session, 4) is None
    assert driver.send(session, 4) is Admission.DUPLICATE


def test_the_window_bounds_the_results(driver: Driver) -> None:
    session = driver.open(1)
    for number in range(1, 11):
        driver.send(session, number, result=b"x")
    kept = [number for number in range(1, 11) if driver.table.result(session, number)]
    assert kept == [7, 8, 9, 10]


def test_beyond_the_byte_cap_the_short_form_is_kept(driver: Driver) -> None:
    session = driver.open(1)
    driver.send(session, 1, result=b"x" * 15)
    driver.send(session, 2, result=b"y" * 6)
    driver.send(session, 3, result=b"z" * 4)
    assert driver.table.result(session, 2) == b"-"
    assert driver.table.result(session, 3) == b"zzzz"
    driver.send(session, 4, lowest=4, result=b"w" * 20)
    assert driver.table.result(session, 4) == b"w" * 20


def test_the_least_recently_used_session_gives_way(driver: Driver) -> None:
    one, two, three = (driver.open(nonce) for nonce in (1, 2, 3))
    driver.send(one, 1)
    driver.send(two, 5)
    four = driver.open(4)
    assert driver.table.get(three) is None
    assert driver.send(three, 1) is Admission.EXPIRED
    assert all(driver.table.get(session) for session in (one, two, four))
    driver.open(5)
    assert driver.table.get(one) is None


def test_a_session_expires_a_day_after_its_last_use(driver: Driver) -> None:
    one, two = driver.open(1), driver.open(2)
    driver.now_us = DAY_US - 1
    driver.table.expire(driver.now_us)
    driver.send(one, 1)
    driver.now_us = DAY_US
    driver.table.expire(driver.now_us)
    assert driver.table.get(one) is not None
    assert driver.table.get(two) is None
    driver.table.expire(2 * DAY_US - 1)
    assert len(driver.table) == 0
    assert driver.table.of_nonce(1) is None


def test_the_first_time_of_the_log_expires_nobody(driver: Driver) -> None:
    """Until then it is 0; then it steps to the present, decades later."""
    session = driver.open(1)
    driver.table.take_changed()
    driver.table.start_clock(50_000 * DAY_US)
    assert [changed for changed, _ in driver.table.take_changed()] == [session]
    driver.table.expire(50_000 * DAY_US)
    assert driver.table.get(session) is not None
    driver.table.expire(50_001 * DAY_US)
    assert driver.table.get(session) is None


def test_a_closed_session_keeps_its_results_until_it_would_have_expired(driver: Driver) -> None:
    session = driver.open(1)
    driver.send(session, 1, result=b"kept")
    driver.now_us = DAY_US // 2
    driver.table.close(session)
    driver.table.close(session)
    driver.table.close(12345)
    assert driver.send(session, 2) is Admission.EXPIRED
    assert driver.send(session, 1, lowest=9) is Admission.DUPLICATE
    assert driver.table.result(session, 1) == b"kept"
    driver.table.expire(DAY_US - 1)
    assert driver.table.get(session) is not None
    driver.table.expire(DAY_US)
    assert driver.table.get(session) is None


def test_changes_are_told_once(driver: Driver) -> None:
    one = driver.open(1)
    driver.send(one, 1)
    assert [session for session, _ in driver.table.take_changed()] == [one]
    assert driver.table.take_changed() == []
    for nonce in (2, 3, 4):
        driver.open(nonce)
    changed = dict(driver.table.take_changed())
    assert changed[one] is None
    assert len(changed) == 4


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(1, 5)),
        st.tuples(st.just("send"), st.integers(0, 4), st.integers(1, 4), st.integers(0, 5)),
        st.tuples(st.just("close"), st.integers(0, 4)),
        st.tuples(st.just("expire"), st.integers(0, DAY_US)),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS, st.integers(0, 40))
def test_a_table_written_and_read_goes_on_as_if_nothing_had_happened(
    steps: list[tuple[Any, ...]], cut: int
) -> None:
    kept, reread = Driver(), Driver()
    disk: dict[int, bytes] = {}
    opened: list[int] = [0]
    for at, (what, *arguments) in enumerate(steps):
        answers: list[object] = []
        for driver in (kept, reread):
            if what == "open":
                answers.append(driver.open(*arguments))
            elif what == "send":
                session = opened[arguments[0] % len(opened)]
                answers.append(driver.send(session, *arguments[1:]))
            elif what == "close":
                driver.table.close(opened[arguments[0] % len(opened)])
            else:
                driver.now_us += arguments[0]
                driver.table.expire(driver.now_us)
            driver.table.check()
        assert len({str(answer) for answer in answers}) <= 1
        if what == "open":
            opened.append(kept.stamp)
        for session, state in reread.table.take_changed():
            if state is None:
                disk.pop(session, None)
            else:
                disk[session] = encode_session(state)
        if at == cut:
            sessions = [decode_session(session, disk[session]) for session in sorted(disk)]
            reread.table = SessionTable(LIMITS, sessions)
            reread.table.check()
