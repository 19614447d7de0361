"""The ring election, hop by hop."""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from random import Random

import msgspec
import pytest

from distinv.election.api import ElectionAction, ElectionContext, Nominate, SendElection
from distinv.election.ring import Ack, Elected, Phase, Ring, RingMessage, Token, decode_untrusted
from distinv.entry import Ballot, NodeId
from distinv.errors import BadDatagram
from distinv.testing.conformance.electorate import ANSWER_US, TIMING, Electorate

MEMBERS = tuple(NodeId(number) for number in (1, 2, 3, 4, 5))


def ring(node: int, leader: int | None = 5) -> Ring:
    election = Ring(ElectionContext(NodeId(node), Random(node), TIMING))
    election.on_members(MEMBERS, 0)
    if leader is not None:
        election.on_leader(NodeId(leader), Ballot(1, leader), 0)
    return election


def said(actions: list[ElectionAction]) -> list[tuple[int, RingMessage]]:
    return [
        (action.to, decode_untrusted(action.body))
        for action in actions
        if isinstance(action, SendElection)
    ]


def passed(actions: list[ElectionAction]) -> list[tuple[int, Token | Elected]]:
    """What is said, acknowledgements apart."""
    return [(to, message) for to, message in said(actions) if not isinstance(message, Ack)]


def hear(election: Ring, source: int, message: RingMessage, now: int) -> list[ElectionAction]:
    return list(election.on_message(NodeId(source), msgspec.msgpack.encode(message), now))


def start(election: Ring, now: int = 0) -> Token:
    ((_, token),) = said(list(election.on_suspect(NodeId(5), now)))
    assert isinstance(token, Token)
    return token


def scene(net: Electorate) -> list[str]:
    """Who nominates and says what, acknowledgements apart; nominations first at each time."""
    lines = [(each.at, f"{each.by} nominates {each.whom}") for each in net.nominations]
    for when, source, send in net.sends:
        for to, message in passed([send]):
            name = type(message).__name__
            lines.append((when, f"{source} > {to} {name} {message.candidate}"))
    return [line for _, line in sorted(lines, key=itemgetter(0))]


def test_the_scene_of_the_paper() -> None:
    """The leader is dead, server 2 notices; 4 puts its own id in and gets it back."""
    net = Electorate(Ring, 5, delays_us=range(1, 2), insistent=False)
    net.lead(5)
    net.kill(5)
    net.suspect([2], 5)
    net.at(50, partial(net.suspect, [4], 5))
    net.run(ANSWER_US)
    assert scene(net) == [
        "2 > 3 Token 2",
        "3 > 4 Token 3",
        "4 > 5 Token 4",
        "4 > 1 Token 4",
        "1 > 2 Token 4",
        "2 > 3 Token 4",
        "3 > 4 Token 4",
        "4 nominates 4",
        "4 > 1 Elected 4",
        "1 > 2 Elected 4",
        "2 > 3 Elected 4",
        "3 > 4 Elected 4",
    ]


def test_a_silent_successor_is_asked_three_times_and_then_passed_over() -> None:
    election = ring(2)
    first = start(election)
    heard: list[tuple[int, list[tuple[int, RingMessage]]]] = []
    while not heard or heard[-1][1][0][0] == 3:
        due = election.deadline()
        assert due is not None
        heard.append((due, said(list(election.on_deadline(due)))))
    assert [to for _, ((to, _),) in heard] == [3, 3, 4]
    assert heard[0][1][0][1] == first
    assert heard[-1][0] <= ANSWER_US


def test_the_suspected_leader_is_passed_over_at_once() -> None:
    assert said(list(ring(4).on_suspect(NodeId(5), 0)))[0][0] == 1


def test_when_nobody_acknowledges_it_nominates_itself() -> None:
    election = ring(2)
    start(election)
    actions: list[ElectionAction] = []
    while Nominate(NodeId(2)) not in actions:
        due = election.deadline()
        assert due is not None
        assert due <= 4 * ANSWER_US
        actions = list(election.on_deadline(due))


def test_a_repeated_message_is_acknowledged_and_not_passed_on_again() -> None:
    election = ring(3)
    token = Token(1, 2, 0, 77)
    assert said(hear(election, 2, token, 0))[0] == (2, Ack(77, 1))
    assert said(hear(election, 2, token, 1)) == [(2, Ack(77, 1))]


def test_worse_candidates_are_swallowed_and_better_ones_passed_on() -> None:
    election = ring(3)
    ((to, token),) = passed(hear(election, 2, Token(1, 2, 0, 1), 0))
    assert (to, token.candidate, token.hops) == (4, 3, 0)
    assert passed(hear(election, 2, Token(1, 1, 1, 2), 1)) == []
    ((to, token),) = passed(hear(election, 2, Token(1, 4, 2, 3), 2))
    assert (to, token.candidate, token.hops) == (4, 4, 3)


def test_a_message_of_an_old_election_is_dropped_and_the_sender_told() -> None:
    election = ring(3)
    hear(election, 2, Token(9, 2, 0, 1), 0)
    assert said(hear(election, 1, Token(8, 1, 0, 5), 1)) == [(1, Ack(5, 9))]


def test_one_that_slept_starts_again_above_but_not_at_a_peers_pace() -> None:
    election = ring(2)
    token = start(election)
    assert hear(election, 3, Ack(token.serial, 40), 10) == []
    due = election.deadline()
    assert due is not None
    assert 10 < due <= 11 + ANSWER_US
    ((_, again),) = said(list(election.on_deadline(due)))
    assert isinstance(again, Token)
    assert again.number == 41


@pytest.mark.parametrize("number", [2**32 + 2, 2**63 - 1])
def test_an_absurd_number_is_ignored(number: int) -> None:
    election = ring(2)
    token = start(election)
    assert hear(election, 3, Token(number, 3, 0, 1), 1) == []
    hear(election, 3, Ack(token.serial, number), 1)
    assert election._number == token.number


def test_only_the_acknowledgement_of_this_hop_counts() -> None:
    election = ring(2)
    token = start(election)
    hear(election, 4, Ack(token.serial, 1), 1)
    hear(election, 3, Ack(token.serial - 1, 1), 1)
    assert election.deadline() == ANSWER_US // 3
    hear(election, 3, Ack(token.serial, 1), 1)
    assert election.deadline() != ANSWER_US // 3


def test_the_id_of_a_candidate_that_died_goes_round_once() -> None:
    """Server 5's id is on its way when it dies: nobody passes the same id on twice."""
    net = Electorate(Ring, 5, delays_us=range(1, 2), insistent=False)
    net.suspect([5], None)
    net.at(1, lambda: net.kill(5))
    net.run(ANSWER_US - 1)
    assert (
        scene(net)
        == ["5 > 1 Token 5", "1 > 2 Token 5", "2 > 3 Token 5", "3 > 4 Token 5"]
        + ["4 > 5 Token 5"] * 3
    )
    assert net.run_until_nominated(20 * ANSWER_US) == 4


def test_a_message_with_too_many_hops_is_dropped() -> None:
    election = ring(3)
    assert passed(hear(election, 2, Token(1, 4, len(MEMBERS), 1), 0)) == []
    assert passed(hear(election, 2, Elected(1, 4, len(MEMBERS), 1), 0)) == []


def test_what_names_no_member_is_acknowledged_and_dropped() -> None:
    election = ring(3)
    assert said(hear(election, 2, Token(1, 99, 0, 4), 0)) == [(2, Ack(4, 0))]
    assert election.phase is Phase.IDLE


def test_elected_makes_the_others_wait_and_is_passed_on() -> None:
    election = ring(3)
    ((to, elected),) = passed(hear(election, 2, Elected(1, 4, 1, 1), 0))
    assert (to, elected.candidate, elected.hops) == (4, 4, 2)
    assert election.phase is Phase.ELECTED


def test_a_leader_in_office_ends_the_election_of_one_that_missed_it() -> None:
    election = ring(5)
    ((to, answer),) = passed(hear(election, 4, Token(1, 4, 0, 1), 0))
    assert (to, answer.candidate) == (1, 5)
    assert isinstance(answer, Elected)


def test_an_election_that_is_over_is_not_revived_by_its_stragglers() -> None:
    election = ring(3)
    hear(election, 2, Token(4, 2, 0, 1), 0)
    election.on_leader(NodeId(4), Ballot(2, 4), 1)
    assert said(hear(election, 2, Token(4, 5, 3, 2), 2)) == [(2, Ack(2, 4))]
    assert election.deadline() is None


@pytest.mark.parametrize("body", [b"", b"\x91\x01", b"\x95\x01\x01\x00\x00\x00", bytes(100)])
def test_what_is_not_a_message_is_a_bad_datagram(body: bytes) -> None:
    with pytest.raises(BadDatagram):
        decode_untrusted(body)
