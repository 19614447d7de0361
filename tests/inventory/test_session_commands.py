"""Numbered commands through the log: exactly once, in order, with a seq only for what counts."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from inventory_kit import DAY_US, Log, outcome

from distinv.config import Limits
from distinv.entry import ORIGIN, EntryKind, make_entry
from distinv.errors import StorageError, UpgradeNeeded
from distinv.inventory import calls, commands
from distinv.inventory.commands import (
    Accepted,
    Refused,
    Trimmed,
    Voided,
    decode_outcome,
    encode_outcome,
)
from distinv.inventory.machine import StateMachine
from distinv.wire.batch import OpenCommand, SessionCommand, session_id

RECEIVE = calls.receive({"A": 1})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def session(log: Log) -> int:
    opened = log.open()
    log.send(opened, 1, calls.put_item("A"))
    return opened


def on_hand(log: Log) -> int:
    ask = calls.level("A")
    return ask.value(log.machine.query(ask.encode())).on_hand


def test_a_sessions_id_is_its_place_in_the_log(log: Log) -> None:
    log.append_payload(b"", EntryKind.NOOP)
    applied = log.append(OpenCommand(7, "a"), OpenCommand(8, "b"), OpenCommand(7, "a"))
    assert [each.session for each in applied] == [
        session_id(2, 0),
        session_id(2, 1),
        session_id(2, 0),
    ]
    assert [each.kind for each in applied] == ["opened"] * 3
    assert [each.nonce for each in applied] == [7, 8, 7]
    assert log.machine.session_of_nonce(8) == session_id(2, 1)
    assert log.machine.session_count == 2
    assert log.machine.seq == 0


def test_a_second_copy_has_no_effect_and_gets_the_recorded_answer(log: Log, session: int) -> None:
    first = log.send(session, 2, RECEIVE)
    log.now_us += 5
    again = log.send(session, 2, calls.receive({"A": 100}))
    assert again == first
    assert on_hand(log) == 1
    assert log.machine.seq == 2
    assert log.machine.result(session, 2) == first.result
    assert log.machine.last_number(session) == 2


def test_a_number_out_of_order_waits_for_those_before(log: Log, session: int) -> None:
    assert log.send(session, 3, RECEIVE).kind == "gap"
    assert on_hand(log) == 0
    log.send(session, 2, RECEIVE)
    assert log.send(session, 3, RECEIVE).kind == "result"
    assert (on_hand(log), log.machine.seq) == (2, 3)


def test_one_entry_holds_commands_of_many_sessions(log: Log) -> None:
    one, two = log.open(1), log.open(2)
    put = calls.put_item("A").encode()
    applied = log.append(
        SessionCommand(one, 1, 0, put),
        SessionCommand(two, 1, 0, RECEIVE.encode()),
        SessionCommand(one, 2, 0, RECEIVE.encode()),
        SessionCommand(two, 3, 0, RECEIVE.encode()),
        SessionCommand(two, 1, 0, RECEIVE.encode()),
    )
    assert [each.kind for each in applied] == ["result", "result", "result", "gap", "result"]
    assert applied[4].result == applied[1].result
    assert on_hand(log) == 2


def test_a_void_takes_its_number_and_nothing_else(log: Log, session: int) -> None:
    log.now_us += 9
    assert outcome(log.send(session, 2, b"")) == Voided(log.now_us)
    late = log.send(session, 2, RECEIVE)
    assert isinstance(outcome(late), Voided)
    assert (on_hand(log), log.machine.seq) == (0, 1)


def test_what_arrived_before_the_void_counts(log: Log, session: int) -> None:
    first = log.send(session, 2, RECEIVE)
    assert log.send(session, 2, b"").result == first.result


@pytest.mark.parametrize("data", [b"\xc1", b"\x92\x91", b"\xd9", bytes(3_000_000)])
def test_bytes_that_are_no_command_are_refused_with_a_seq(
    log: Log, session: int, data: bytes
) -> None:
    answer = outcome(log.send(session, 2, data))
    assert isinstance(answer, Refused)
    assert answer.code in ("invalid_request", "too_many_lines")
    assert (answer.seq, answer.time_us, log.machine.seq) == (2, log.now_us, 2)
    assert log.send(session, 3, RECEIVE).kind == "result"


OF_LATER_RELEASES = {
    "an operation": [[[99, "A"]], ""],
    "an operation's field": [[[2, "A", None, ["", "", "", None], "new"]], ""],
    "the envelope's field": [[[2, "A"]], "", "new"],
    "another envelope": [],
}


@pytest.mark.parametrize("what", OF_LATER_RELEASES)
def test_a_committed_command_of_a_later_release_stops_the_server(
    log: Log, session: int, what: str
) -> None:
    """Others carry it out. Passed over here, the stores would differ from then on."""
    before = log.machine.position
    command = msgspec.msgpack.encode(OF_LATER_RELEASES[what])
    with pytest.raises(UpgradeNeeded) as caught:
        log.send(session, 2, command)
    assert str(caught.value) == (
        f"entry {before.index + 1} holds a command that this release does not know: the cluster "
        "runs a later one; upgrade this server"
    )
    assert log.machine.position == before
    with pytest.raises(StorageError):
        log.send(session, 2, RECEIVE)


def test_a_committed_batch_of_a_later_release_stops_the_server(log: Log) -> None:
    with pytest.raises(UpgradeNeeded, match="entry 1 holds a command that this release"):
        log.append_payload(msgspec.msgpack.encode([[250, 1]]), EntryKind.COMMANDS)


def test_every_operation_says_since_when_it_exists() -> None:
    assert list(commands.OPERATION_SINCE) == list(get_args(commands.Operation))


def test_seq_counts_accepted_and_refused_commands_only(log: Log, session: int) -> None:
    log.append_payload(b"", EntryKind.NOOP)
    log.append_payload(b"anything", EntryKind.VOTERS)
    log.append_payload(b"\xc1 not a batch", EntryKind.COMMANDS)
    log.send(session, 2, b"")
    log.send(session, 2, RECEIVE)
    log.send(session, 9, RECEIVE)
    log.send(12345, 1, RECEIVE)
    log.close(log.open(5))
    assert log.machine.seq == 1
    refused = outcome(log.send(session, 3, calls.ship({"A": 1})))
    accepted = outcome(log.send(session, 4, calls.receive({"A": 1}, idempotency_key="k")))
    assert isinstance(refused, Refused)
    assert isinstance(accepted, Accepted)
    assert (refused.seq, accepted.seq) == (2, 3)
    log.send(session, 5, calls.receive({"A": 1}, idempotency_key="k"))
    assert log.machine.seq == 3
    assert log.machine.position == log.entries[-1].position


def test_an_unknown_or_closed_session_is_expired(log: Log, session: int) -> None:
    assert log.send(999, 1, RECEIVE).kind == "expired"
    first = log.send(session, 2, RECEIVE)
    closed = log.close(session)
    assert (closed.kind, closed.session) == ("closed", session)
    assert log.close(999).kind == "closed"
    assert log.send(session, 3, RECEIVE).kind == "expired"
    assert log.send(session, 2, RECEIVE).result == first.result
    assert log.machine.last_number(session) == 2
    assert log.machine.last_number(999) is None
    assert log.machine.result(999, 1) is None
    assert log.open(1) != session


def test_expiry_follows_the_logs_time_even_of_an_entry_without_commands(log: Log) -> None:
    session = log.open()
    log.now_us += DAY_US
    log.append_payload(b"", EntryKind.NOOP)
    assert log.machine.last_number(session) is None
    assert log.send(session, 1, RECEIVE).kind == "expired"
    assert log.machine.problems() == []


def test_a_duplicate_whose_result_is_gone_is_told_apart(log: Log, session: int) -> None:
    log.send(session, 2, RECEIVE)
    log.send(session, 3, RECEIVE, lowest=3)
    applied = log.send(session, 2, RECEIVE, lowest=3)
    assert (applied.kind, applied.result) == ("dropped", b"")
    assert on_hand(log) == 2


# --- results that do not fit ------------------------------------------------------------------


def test_an_answer_that_was_cut_short_is_told_whole_from_the_ledger() -> None:
    log = Log(limits=Limits(session_results_bytes=150))
    session = log.open()
    log.send(session, 1, calls.execute([calls.put_item(sku) for sku in "ABCDEF"]), lowest=1)
    first = log.send(session, 2, calls.receive(dict.fromkeys("ABCDEF", 1)), lowest=2)
    second = log.send(session, 3, calls.receive(dict.fromkeys("ABCDEF", 1)), lowest=2)
    stored = log.machine._sessions.result(session, 3)
    assert stored is not None
    assert isinstance(decode_outcome(stored), Trimmed)
    assert log.machine.result(session, 2) == first.result
    assert log.machine.result(session, 3) == second.result
    assert log.send(session, 3, RECEIVE).result == second.result


def test_a_refusal_that_was_cut_short_keeps_seq_and_code() -> None:
    log = Log(limits=Limits(session_results_bytes=500))
    session = log.open()
    log.send(session, 1, calls.put_item("A" * 100), lowest=2)
    call = calls.ship({"A" * 100: 1})
    whole = log.send(session, 2, call, lowest=2)
    assert log.machine.result(session, 2) == whole.result
    log.send(session, 3, call, lowest=2)
    kept = log.machine.result(session, 3)
    assert kept == encode_outcome(Trimmed(3, log.now_us, "insufficient_stock"))
    with pytest.raises(Exception, match="not enough stock") as caught:
        call.value(kept)
    assert getattr(caught.value, "seq", None) == 3


def test_an_answer_too_large_to_send_is_cut_short_at_once() -> None:
    log = Log(limits=Limits(session_results_bytes=100))
    session = log.open()
    answer = outcome(
        log.send(session, 1, calls.execute([calls.put_item(f"{n:09}") for n in range(50)]))
    )
    assert answer == Trimmed(1, log.now_us, "")
    assert isinstance(decode_outcome(log.machine.result(session, 1) or b""), Trimmed)


# --- the log ----------------------------------------------------------------------------------


def test_entries_must_follow_one_another(log: Log) -> None:
    machine = StateMachine()
    first = make_entry(ORIGIN, log.machine.position.ballot, 1, EntryKind.NOOP, b"")
    second = make_entry(first.position, first.ballot, 1, EntryKind.NOOP, b"")
    with pytest.raises(StorageError):
        machine.apply(second)
    machine.apply(first)
    with pytest.raises(StorageError):
        machine.apply(first)
    machine.apply(second)
    assert machine.position == second.position


def test_when_the_log_learns_the_time_nothing_of_before_expires(log: Log) -> None:
    log.now_us, real_us = 0, log.now_us
    session = log.open()
    keyed = calls.receive({"A": 1}, idempotency_key="k")
    log.send(session, 1, calls.put_item("A"))
    first = outcome(log.send(session, 2, keyed))
    log.machine.flush()
    log.send(session, 3, calls.receive({"A": 1}, idempotency_key="l"))
    log.now_us = real_us
    again = outcome(log.send(session, 4, keyed))
    assert isinstance(first, Accepted)
    assert isinstance(again, Accepted)
    assert again.replayed
    assert again.seq == first.seq
    assert log.machine.problems() == []
    log.now_us += DAY_US
    log.append_payload(b"", EntryKind.NOOP)
    assert log.machine.last_number(session) is None
    log.now_us += 6 * DAY_US
    other = log.open(2)
    assert not outcome(log.send(other, 1, keyed)).replayed  # type: ignore[union-attr]
    assert log.machine.problems() == []
