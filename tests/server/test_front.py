"""The front: a command enters the log once and in order, and "not taken" is the truth."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from attrs import Factory, define

from distinv.config import Limits
from distinv.entry import ORIGIN, NodeId, Position
from distinv.errors import InvalidRequest
from distinv.inventory.machine import Applied
from distinv.server.errands import Errands
from distinv.server.front import Front, Situation
from distinv.wire.batch import CloseSession, LogCommand, OpenCommand, SessionCommand, session_id
from distinv.wire.messages import (
    Answer,
    EndSession,
    NotTaken,
    OpenSession,
    Query,
    QueryFailed,
    Reply,
    Request,
    SessionEnded,
    SessionOpened,
)

TILL, OTHER = NodeId(100), NodeId(101)
LEADER = NodeId(1)
THERE = ("10.0.0.1", 4747)
SERVING = Situation(True, False, True, LEADER, None)
FOLLOWING = Situation(False, False, True, LEADER, THERE)
LEADERLESS = Situation(False, False, True, None, None)
ALONE = Situation(False, False, False, None, None)


@define
class Session:
    nonce: int
    last: int = 0
    closed: bool = False
    results: dict[int, bytes] = Factory(dict)


@define
class Ledger:
    """A machine whose commands all succeed: only its sessions matter."""

    position: Position = ORIGIN
    seq: int = 0
    sessions: dict[int, Session] = Factory(dict)

    def apply(self, *commands: LogCommand) -> list[Applied]:
        index = self.position.index + 1
        self.position = Position(index, ORIGIN.ballot, b"")
        return [
            self._apply(command, session_id(index, offset))
            for offset, command in enumerate(commands)
        ]

    def _apply(self, command: LogCommand, stamp: int) -> Applied:
        if isinstance(command, OpenCommand):
            self.sessions[stamp] = Session(command.nonce)
            return Applied(stamp, 0, command.nonce, b"", "opened")
        session = self.sessions.get(command.session)
        if isinstance(command, CloseSession):
            if session is not None:
                session.closed = True
            return Applied(command.session, 0, 0, b"", "closed")
        number = command.number
        kind, result = "result", command.command + b" done"
        if session is None or (session.closed and number > session.last):
            kind, result = "expired", b""
        elif number <= session.last:
            kind, result = "dropped", b""
        elif number > session.last + 1:
            kind, result = "gap", b""
        else:
            self.seq += 1
            session.last = number
            kept = {**session.results, number: result}
            session.results = {at: old for at, old in kept.items() if at >= command.lowest}
        return Applied(command.session, number, 0, result, kind)

    def last_number(self, session: int) -> int | None:
        state = self.sessions.get(session)
        return None if state is None else state.last

    def result(self, session: int, number: int) -> bytes | None:
        return self.sessions[session].results.get(number)

    def session_of_nonce(self, nonce: int) -> int | None:
        found = [id for id, each in self.sessions.items() if each.nonce == nonce]
        return found[0] if found else None

    def query(self, data: bytes) -> bytes:
        return data + b" at %d" % self.position.index

    def takes_long(self, data: bytes) -> bool:
        return False


@define
class Checked:
    protocol: int


def check(data: bytes) -> Checked:
    if data == b"nonsense":
        raise InvalidRequest("that is nonsense")
    return Checked(2 if data == b"new" else 1)


class Desk:
    """A front with one open session, as the engine of a serving leader has it."""

    def __init__(self, limits: Limits | None = None, situation: Situation = SERVING) -> None:
        limits = limits or Limits()
        self.machine = Ledger()
        machine: Any = self.machine
        self.front = Front(machine, check, limits, Errands(limits.pending_reads))
        self.front.situation = situation
        (opened,) = self.machine.apply(OpenCommand(7, "till"))
        self.session = opened.session

    def ask(self, number: int, copy: int = 1, body: bytes | None = None, lowest: int = 1) -> None:
        body = b"%d" % number if body is None else body
        self.front.on_request(TILL, Request(self.session, number, copy, lowest, body))

    def apply(self, *commands: LogCommand) -> None:
        self.front.on_applied(self.machine.apply(*commands))

    def said(self) -> list[Any]:
        return [message for _, message in self.front.take_messages()]

    def submitted(self) -> list[Any]:
        return self.front.take_submissions()

    def numbers(self) -> list[int]:
        return [command.number for command in self.submitted()]

    def become(self, situation: Situation) -> None:
        self.front.situation = situation
        self.front.on_leadership(situation.serving)

    def not_taken(self, number: int, copy: int, reason: str, detail: str = "") -> NotTaken:
        leader, address = self.front.situation.leader or 0, self.front.situation.leader_address
        return NotTaken(self.session, number, copy, reason, detail, leader, address)


# --- once, and in order -----------------------------------------------------------------------


def test_numbers_enter_the_log_once_and_in_order() -> None:
    desk = Desk()
    for number in (1, 2, 2, 1, 3):
        desk.ask(number)
    assert desk.numbers() == [1, 2, 3]
    assert desk.said() == []


def test_a_number_after_a_gap_is_not_taken() -> None:
    desk = Desk()
    desk.ask(1)
    desk.ask(3)
    assert desk.numbers() == [1]
    assert desk.said() == [desk.not_taken(3, 1, "gap", "expected 2")]


def test_the_answer_goes_to_the_last_copy_and_once() -> None:
    desk = Desk()
    desk.ask(1)
    desk.front.on_request(OTHER, Request(desk.session, 1, 2, 1, b"1"))
    desk.apply(*desk.submitted())
    assert desk.front.take_messages() == [(OTHER, Reply(desk.session, 1, b"1 done"))]


@pytest.mark.parametrize("situation", [SERVING, FOLLOWING, LEADERLESS])
def test_what_was_applied_is_answered_by_any_server(situation: Situation) -> None:
    desk = Desk(situation=situation)
    desk.apply(SessionCommand(desk.session, 1, 1, b"1"))
    desk.ask(1, copy=5)
    assert desk.said() == [Reply(desk.session, 1, b"1 done")]
    assert desk.submitted() == []


def test_a_result_that_is_not_needed_any_more_is_not_told() -> None:
    desk = Desk()
    desk.apply(SessionCommand(desk.session, 1, 1, b"1"), SessionCommand(desk.session, 2, 2, b"2"))
    desk.ask(1)
    assert desk.said() == []
    assert desk.submitted() == []


def test_what_cannot_be_read_is_not_taken_and_leaves_its_number_free() -> None:
    desk = Desk()
    desk.ask(1, body=b"nonsense")
    desk.ask(2)
    assert desk.said() == [
        desk.not_taken(1, 1, "invalid_request", "that is nonsense"),
        desk.not_taken(2, 1, "gap", "expected 1"),
    ]
    desk.ask(1, copy=2, body=b"")
    assert desk.numbers() == [1], "as a void"


def test_a_command_that_some_server_cannot_carry_out_is_not_taken() -> None:
    desk = Desk()
    desk.ask(1, body=b"new")
    assert desk.said() == [
        desk.not_taken(
            1,
            1,
            "version_mismatch",
            "the command needs protocol 2, and not every server of the cluster is known to speak "
            "more than 1: upgrade them all first",
        )
    ]
    assert desk.numbers() == []
    desk.front.situation = msgspec.structs.replace(SERVING, protocol=2)
    desk.ask(1, copy=2, body=b"new")
    assert desk.numbers() == [1]


# --- not taken, and why -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (FOLLOWING, "not_leader"),
        (LEADERLESS, "no_leader"),
        (ALONE, "no_quorum"),
        (Situation(True, True, True, LEADER, None), "no_leader"),
    ],
)
def test_who_cannot_take_it_says_so_and_where_to_go(situation: Situation, reason: str) -> None:
    desk = Desk(situation=situation)
    desk.ask(1)
    desk.front.on_open(TILL, OpenSession(8, "till", 3))
    first, second = desk.said()
    assert first == desk.not_taken(1, 1, reason)
    assert (second.session, second.number, second.copy, second.reason) == (0, 8, 3, reason)
    assert desk.submitted() == []


def test_more_than_can_be_held_is_not_taken() -> None:
    desk = Desk(Limits(pending_commands=2))
    for number in (1, 2, 3):
        desk.ask(number)
    assert desk.numbers() == [1, 2]
    assert desk.said() == [desk.not_taken(3, 1, "overloaded")]
    desk.ask(2, copy=2)
    assert desk.said() == [], "that one is under way"


def test_what_was_submitted_but_not_appended_is_not_taken() -> None:
    desk = Desk()
    desk.ask(1)
    desk.ask(2)
    desk.front.on_open(TILL, OpenSession(8, "till", 1))
    commands = desk.submitted()
    desk.become(FOLLOWING)
    desk.front.on_not_appended(commands, "no_leader")
    assert [message.reason for message in desk.said()] == ["no_leader"] * 3
    desk.front.on_not_appended(commands, "no_leader")
    assert desk.said() == [], "once"


def test_what_was_appended_by_a_leader_that_lost_office_may_still_win() -> None:
    """The trap: "not taken" here would be a lie, if the next leader has the entry."""
    desk = Desk()
    desk.ask(1)
    commands = desk.submitted()
    desk.become(LEADERLESS)
    desk.become(FOLLOWING)
    assert desk.said() == []
    desk.apply(*commands)
    assert desk.said() == [Reply(desk.session, 1, b"1 done")]


def test_a_later_copy_is_refused_while_the_earlier_one_is_in_doubt() -> None:
    desk = Desk()
    desk.ask(1)
    commands = desk.submitted()
    desk.become(FOLLOWING)
    desk.ask(1, copy=2)
    assert desk.said() == [desk.not_taken(1, 2, "not_leader")]
    desk.apply(*commands)
    assert desk.said() == [Reply(desk.session, 1, b"1 done")]


def test_when_it_serves_again_what_was_not_applied_is_gone() -> None:
    desk = Desk()
    desk.ask(1)
    desk.front.on_open(TILL, OpenSession(8, "till", 1))
    desk.submitted()
    desk.become(LEADERLESS)
    desk.become(SERVING)
    assert [message.reason for message in desk.said()] == ["no_leader"] * 2
    desk.ask(1, copy=2)
    assert desk.numbers() == [1], "and may come again"


# --- sessions the front does not know ---------------------------------------------------------


def test_only_the_log_says_that_a_session_has_expired() -> None:
    desk = Desk()
    desk.session = 12345
    desk.ask(7)
    (submitted,) = desk.submitted()
    assert desk.said() == []
    desk.apply(submitted)
    assert desk.said() == [desk.not_taken(7, 1, "session_expired")]


def test_a_gap_behind_a_session_unknown_here_is_let_in_afterwards() -> None:
    """Its number was thought to be in the log already: the stream stood still for ever."""
    desk = Desk()
    desk.session = session_id(desk.machine.position.index + 1, 0)  # its entry is not applied here
    desk.ask(2)
    late = desk.submitted()
    desk.apply(OpenCommand(9, "till"))
    desk.apply(*late)
    assert desk.said() == [desk.not_taken(2, 1, "gap")]
    desk.ask(1, copy=2)
    assert desk.numbers() == [1]


def test_an_open_session_is_opened_once_per_nonce() -> None:
    desk = Desk()
    for copy in (1, 2):
        desk.front.on_open(TILL, OpenSession(8, "till", copy))
    (command,) = desk.submitted()
    desk.apply(command)
    (opened,) = desk.said()
    assert opened == SessionOpened(8, desk.machine.session_of_nonce(8))
    desk.front.on_open(OTHER, OpenSession(8, "till", 3))
    assert desk.said() == [opened]
    assert desk.submitted() == []


def test_a_copy_of_an_open_that_a_former_leader_appended_is_sent_on() -> None:
    """Neither taken nor refused, it left the client waiting for its time-out."""
    desk = Desk()
    desk.front.on_open(TILL, OpenSession(8, "till", 1))
    (command,) = desk.submitted()
    desk.become(FOLLOWING)
    desk.front.on_open(TILL, OpenSession(8, "till", 2))
    (said,) = desk.said()
    assert (said.number, said.copy, said.reason) == (8, 2, "not_leader")
    desk.apply(command)
    assert desk.said() == [SessionOpened(8, desk.machine.session_of_nonce(8))]


def test_a_name_that_is_too_long_opens_nothing() -> None:
    desk = Desk()
    desk.front.on_open(TILL, OpenSession(8, "x" * 300, 1))
    (refused,) = desk.said()
    assert refused.reason == "invalid_request"


def test_a_session_is_closed_through_the_log() -> None:
    desk = Desk()
    desk.front.on_end(TILL, EndSession(desk.session))
    commands = desk.submitted()
    assert commands == [CloseSession(desk.session)]
    assert desk.said() == []
    desk.apply(*commands)
    assert desk.said() == [SessionEnded(desk.session)]
    desk.ask(1)
    desk.apply(*desk.submitted())
    assert desk.said() == [desk.not_taken(1, 1, "session_expired")]


# --- reads ------------------------------------------------------------------------------------


def query(number: int, *, linearizable: bool = True, min_seq: int = 0) -> Query:
    return Query(number, linearizable, min_seq, b"how many")


def test_a_linearizable_read_waits_for_its_index_to_be_applied() -> None:
    desk = Desk()
    desk.front.on_query(TILL, query(1))
    (ticket,) = desk.front.take_reads()
    desk.front.serve_reads()
    assert desk.said() == []
    desk.front.on_read_ready([ticket], 2)
    assert desk.said() == [], "confirmed, but not applied"
    desk.apply()
    desk.front.serve_reads()
    assert desk.said() == [Answer(1, b"how many at 2")]
    assert not desk.front.reads_waiting


def test_a_read_that_failed_says_why() -> None:
    desk = Desk(situation=FOLLOWING)
    desk.front.on_query(TILL, query(1))
    desk.front.on_read_failed(desk.front.take_reads(), "no_leader")
    assert desk.said() == [QueryFailed(1, "no_leader", "", LEADER, THERE)]
    desk.front.on_read_failed([1, -1, 99], "no_leader")
    assert desk.said() == []


def test_clients_are_told_when_too_few_servers_are_there() -> None:
    """The trap: they stay glued to a server that has no quorum."""
    desk = Desk(situation=ALONE)
    desk.front.on_query(TILL, query(1))
    desk.front.on_read_failed(desk.front.take_reads(), "no_leader")
    (failed,) = desk.said()
    assert failed.reason == "no_quorum"


def test_a_local_read_is_answered_at_once_unless_it_is_behind() -> None:
    desk = Desk(situation=ALONE)
    desk.front.on_query(TILL, query(1, linearizable=False))
    assert desk.said() == [Answer(1, b"how many at 1")]
    desk.front.on_query(TILL, query(2, linearizable=False, min_seq=1))
    assert desk.said() == []
    desk.apply(SessionCommand(desk.session, 1, 1, b"1"))
    desk.front.serve_reads()
    assert desk.said() == [Answer(2, b"how many at 2")]


def test_reads_are_bounded() -> None:
    desk = Desk(Limits(pending_reads=2))
    for number in range(4):
        desk.front.on_query(TILL, query(number))
    assert [message.reason for message in desk.said()] == ["overloaded"] * 2
    assert len(desk.front.take_reads()) == 2


# --- clients ----------------------------------------------------------------------------------


def test_clients_are_remembered_while_they_speak_and_bounded() -> None:
    front = Desk(Limits(peers_max=2)).front
    spoke = [(1, 10), (1, 20), (2, 15), (3, 30)]
    assert [front.heard(NodeId(client), now) for client, now in spoke] == [True, False, True, True]
    assert front.clients == (1, 3), "the longest silent one is forgotten for a new one"
    front.forget_silent(25)
    assert front.clients == (3,)
