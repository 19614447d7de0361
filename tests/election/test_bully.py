"""The bully election, message by message."""

from __future__ import annotations

from operator import itemgetter
from random import Random

import msgspec
import pytest

from distinv.election.api import ElectionAction, ElectionContext, Nominate, SendElection
from distinv.election.bully import (
    Answer,
    Bully,
    BullyMessage,
    Coordinator,
    ElectionCall,
    Phase,
    decode_untrusted,
)
from distinv.entry import Ballot, NodeId
from distinv.errors import BadDatagram
from distinv.testing.conformance.electorate import ANSWER_US, TIMING, Electorate

MEMBERS = tuple(NodeId(number) for number in (1, 2, 3, 4, 5))


def bully(node: int, leader: int | None = 5) -> Bully:
    election = Bully(ElectionContext(NodeId(node), Random(node), TIMING))
    election.on_members(MEMBERS, 0)
    if leader is not None:
        election.on_leader(NodeId(leader), Ballot(1, leader), 0)
    return election


def said(actions: list[ElectionAction]) -> list[tuple[int, BullyMessage]]:
    return [
        (action.to, decode_untrusted(action.body))
        for action in actions
        if isinstance(action, SendElection)
    ]


def hear(election: Bully, source: int, message: BullyMessage, now: int) -> list[ElectionAction]:
    return list(election.on_message(NodeId(source), msgspec.msgpack.encode(message), now))


def ask(election: Bully, now: int = 0) -> int:
    """Make it suspect the leader; returns the number of the election it starts."""
    calls = said(list(election.on_suspect(NodeId(5), now)))
    number = calls[0][1]
    assert isinstance(number, ElectionCall)
    return number.number


def test_it_asks_all_higher_ids_but_the_suspected_leader() -> None:
    calls = said(list(bully(2).on_suspect(NodeId(5), 0)))
    assert [to for to, _ in calls] == [3, 4]


def test_the_highest_of_the_rest_wins_at_once_and_tells_everybody() -> None:
    actions = list(bully(4).on_suspect(NodeId(5), 0))
    assert actions[0] == Nominate(NodeId(4))
    assert said(actions) == [(to, Coordinator()) for to in (1, 2, 3, 5)]


def test_silence_of_all_higher_ids_is_a_victory() -> None:
    election = bully(2)
    ask(election)
    assert election.deadline() == ANSWER_US
    assert list(election.on_deadline(ANSWER_US - 1)) == []
    assert Nominate(NodeId(2)) in list(election.on_deadline(ANSWER_US))


def test_one_that_waits_only_for_the_leader_wins_when_it_suspects_it_itself() -> None:
    election = bully(4)
    assert said(hear(election, 1, ElectionCall(7), 10)) == [
        (1, Answer(7)),
        (5, ElectionCall(election._number)),
    ]
    assert Nominate(NodeId(4)) in list(election.on_suspect(NodeId(5), 20))


def test_an_answer_silences_it_and_a_winner_that_never_leads_is_asked_again() -> None:
    election = bully(2)
    number = ask(election)
    assert hear(election, 4, Answer(number), 10) == []
    assert election.phase is Phase.ANSWERED
    due = election.deadline()
    assert due is not None
    again = said(list(election.on_deadline(due)))
    assert again == [(3, ElectionCall(number + 1)), (4, ElectionCall(number + 1))]


def test_each_fruitless_round_waits_longer_up_to_a_bound() -> None:
    election = bully(4)
    now, waits = 0, []
    list(election.on_suspect(NodeId(5), now))
    for _ in range(9):
        due = election.deadline()
        assert due is not None
        waits.append(due - now)
        now = due
        assert Nominate(NodeId(4)) in list(election.on_deadline(now))
    assert [wait // ANSWER_US for wait in waits[:4]] == pytest.approx([1, 2, 4, 8], abs=1)
    assert all(16 * ANSWER_US <= wait <= 17 * ANSWER_US for wait in waits[4:])


@pytest.mark.parametrize("source", [1, 2, 9])
def test_only_a_higher_member_can_answer(source: int) -> None:
    election = bully(2)
    hear(election, source, Answer(ask(election)), 10)
    assert election.phase is Phase.ASKING


def test_an_answer_to_another_election_is_dropped() -> None:
    election = bully(2)
    number = ask(election)
    hear(election, 4, Answer(number - 1), 10)
    hear(election, 4, Answer(number + 1), 10)
    assert election.phase is Phase.ASKING


def test_a_lower_id_is_answered_and_the_election_taken_over() -> None:
    election = bully(3)
    assert said(hear(election, 1, ElectionCall(7), 10)) == [
        (1, Answer(7)),
        (4, ElectionCall(election._number)),
        (5, ElectionCall(election._number)),
    ]
    # Asked again, it only answers: one election at a time.
    assert said(hear(election, 2, ElectionCall(8), 11)) == [(2, Answer(8))]


def test_a_higher_id_that_asks_is_not_answered() -> None:
    assert hear(bully(3), 4, ElectionCall(7), 10) == []


def test_a_leader_in_office_says_so_instead_of_electing() -> None:
    assert said(hear(bully(5), 2, ElectionCall(7), 10)) == [(2, Coordinator())]
    assert bully(5).deadline() is None


def test_a_winner_that_is_asked_repeats_its_announcement() -> None:
    election = bully(4)
    list(election.on_suspect(NodeId(5), 0))
    assert said(hear(election, 2, ElectionCall(7), 10)) == [(2, Answer(7)), (2, Coordinator())]


def test_an_announcement_is_waited_upon_once() -> None:
    election = bully(2)
    ask(election)
    hear(election, 4, Coordinator(), 10)
    assert election.phase is Phase.WAITING
    due = election.deadline()
    hear(election, 4, Coordinator(), 20)
    assert election.deadline() == due


def test_an_announcement_under_a_healthy_leader_changes_nothing() -> None:
    election = bully(2)
    hear(election, 4, Coordinator(), 10)
    assert election.phase is Phase.IDLE


def test_an_election_somebody_else_wished_for_ends_when_the_leader_is_heard() -> None:
    election = bully(4)
    hear(election, 1, ElectionCall(7), 0)
    for _ in range(2):  # nobody answers: it is nominated; then nothing comes of it
        due = election.deadline()
        assert due is not None
        election.on_deadline(due)
    assert election.phase is Phase.IDLE
    assert election.deadline() is None


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x91\x01", b"\x92\x01\xff", b"\x92\x09\x01", bytes(100)]
)
def test_what_is_not_a_message_is_a_bad_datagram(body: bytes) -> None:
    with pytest.raises(BadDatagram):
        decode_untrusted(body)


def test_the_scene_of_the_paper() -> None:
    """Five servers, the leader dead, server 2 notices: who says what, in order."""
    net = Electorate(Bully, 5, delays_us=range(1, 2))
    net.lead(5)
    net.kill(5)
    net.suspect([2], 5)
    net.run(ANSWER_US + 1_000)
    scene = [(each.at, f"{each.by} nominates {each.whom}") for each in net.nominations]
    for when, source, send in net.sends:
        name = type(decode_untrusted(send.body)).__name__
        scene.append((when, f"{source} > {send.to} {name}"))
    assert [line for _, line in sorted(scene, key=itemgetter(0))] == [
        "2 > 3 ElectionCall",
        "2 > 4 ElectionCall",
        "3 > 2 Answer",
        "3 > 4 ElectionCall",
        "3 > 5 ElectionCall",
        "4 > 2 Answer",
        "4 > 5 ElectionCall",
        "4 > 3 Answer",
        "4 nominates 4",
        "4 > 1 Coordinator",
        "4 > 2 Coordinator",
        "4 > 3 Coordinator",
        "4 > 5 Coordinator",
    ]
