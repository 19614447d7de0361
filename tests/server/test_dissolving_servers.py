"""Whole servers that meet others of their name, or hear that their cluster is no more."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from lone_server import Air, LoneServer, log_of
from test_front import Desk

from distinv import config
from distinv.entry import NO_BALLOT, NodeId
from distinv.inventory.machine import StateMachine
from distinv.server.dissolving import Dissolved
from distinv.server.front import Situation
from distinv.wire.codec import decode_untrusted, encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import (
    Beacon,
    ClusterDissolved,
    Encounter,
    Encountered,
    NotTaken,
    Seek,
)
from distinv.wire.seal import PlainSeal

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
ALARM = "another cluster is also named 'shop'"


def lone(number: int, cluster_id: int, *, touched: bool = False, voters: int = 1) -> LoneServer:
    return LoneServer(number, log_of(cluster_id, number, touched=touched, voters=voters))


def verdict(server: LoneServer, air: Air) -> Dissolved | None:
    return server.engine.dissolved(air.now)


def gave_way(server: LoneServer) -> bool:
    return server.engine.node.log.dissolved is not None


class Outsider:
    """Somebody who says what the test wants, and hears what is said to it or to everybody."""

    def __init__(self, cluster_id: int, number: int = 99) -> None:
        self.address = (f"10.0.0.{number}", 4747)
        self.cluster_id = cluster_id
        self._endpoint = Endpoint(
            self_id=NodeId(number),
            boot=number,
            seal=PlainSeal(),
            random=Random(number),
            timing=config.test().timing,
            limits=config.test().limits,
            payload_bytes=1_200,
            cluster_id=cluster_id,
        )

    def say(self, server: LoneServer, air: Air, *messages: Any) -> list[Any]:
        """What the server answers to this address, at once."""
        for message in messages:
            self._endpoint.send_to(server.address, encode(message), air.now)
        for _, data in self._endpoint.flush(air.now):
            server.engine.receive(data, self.address, air.now)
        return self.heard(server.turn(air.now), air)

    def heard(self, datagrams: list[tuple[Any, bytes]], air: Air) -> list[Any]:
        return [
            decode_untrusted(incoming.body)
            for target, data in datagrams
            if target == self.address
            for incoming in self._endpoint.receive_untrusted(data, ("10.0.0.1", 4747), air.now)
        ]

    def beacon(self, leader: int = 9, name: str = "shop") -> Beacon:
        return Beacon(name, self.cluster_id, "s99", leader, None, NO_BALLOT, 3, 0, ())


# --- two clusters meet ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("touched", "goes", "stays"), [((), 88, 77), ((88,), 77, 88), ((77,), 88, 77)]
)
def test_an_untouched_cluster_gives_way(touched: tuple[int, ...], goes: int, stays: int) -> None:
    servers = {each: lone(each, each, touched=each in touched) for each in (77, 88)}
    air = Air(*servers.values())
    assert air.run(MINUTE_US, lambda: verdict(servers[goes], air) is not None)
    assert verdict(servers[goes], air) == Dissolved(goes, stays)
    air.run(MINUTE_US)
    assert not gave_way(servers[stays])
    assert all(server.told(ALARM) for server in servers.values())


def test_two_that_hold_client_commands_stay_for_ever() -> None:
    one, other = lone(1, 77, touched=True), lone(2, 88, touched=True)
    air = Air(one, other)
    air.run(5 * MINUTE_US)
    assert not gave_way(one)
    assert not gave_way(other)
    assert [5 <= len(server.told(ALARM)) <= 6 for server in (one, other)] == [True, True]


def test_one_that_cannot_find_the_other_hears_of_it_all_the_same() -> None:
    """It was given addresses, say, and the other was not."""
    for touched in (False, True):
        one, other = lone(1, 77, touched=True), lone(2, 88, touched=touched)
        air = Air(one, other)
        air.deaf = [other]
        ended = air.run(MINUTE_US, lambda: verdict(other, air) is not None)  # noqa: B023
        assert ended is not touched
        assert one.told(ALARM)
        assert other.told(ALARM)


def test_two_clusters_do_not_go_on_answering_each_other() -> None:
    one, other = lone(1, 77, touched=True), lone(2, 88, touched=True)
    air = Air(one, other)
    air.run(MINUTE_US)
    beacons = 2 * MINUTE_US // one.settings.timing.beacon_us
    assert len(air.sent) < 3 * beacons, "each says it every few seconds, and once more"


# --- a recording is no cluster ----------------------------------------------------------------


def alone_with(number: int = 1, cluster_id: int = 88) -> tuple[LoneServer, Air]:
    """An untouched leader that nobody else hears."""
    server = lone(number, cluster_id)
    air = Air(server)
    assert air.run(10 * SECOND_US, lambda: server.engine.node.serving)
    return server, air


def questions(heard: list[Any]) -> list[Encounter]:
    return [message for message in heard if isinstance(message, Encounter)]


def question(server: LoneServer, air: Air, other: Outsider) -> int:
    """Announce the other cluster until it is asked."""
    for _ in range(100):
        asked = questions(other.say(server, air, other.beacon()))
        if asked:
            return asked[0].nonce
        air.run(SECOND_US // 10)
    raise AssertionError("it does not ask")


def test_announcements_alone_dissolve_nothing() -> None:
    server, air = alone_with()
    past = Outsider(77)
    for _ in range(300):
        past.say(server, air, past.beacon())
        air.run(SECOND_US)
    assert not gave_way(server)


def test_the_first_word_of_another_cluster_is_not_answered() -> None:
    server, air = alone_with()
    other = Outsider(77)
    assert questions(other.say(server, air, other.beacon(), other.beacon())) == []
    air.run(SECOND_US)
    assert len(questions(other.say(server, air, other.beacon(), other.beacon()))) == 1


def test_a_cluster_that_was_silent_for_long_is_a_new_one() -> None:
    server, air = alone_with()
    other = Outsider(77)
    question(server, air, other)
    air.run(MINUTE_US)
    assert questions(other.say(server, air, other.beacon())) == []


def test_only_the_answer_to_the_last_question_counts() -> None:
    server, air = alone_with()
    other, third = Outsider(77), Outsider(66, 98)
    first = question(server, air, other)
    air.run(SECOND_US)
    second = question(server, air, other)
    assert first != second
    for answer in (
        Encountered(first, 77, "s99", True),
        Encountered(0, 77, "s99", True),
        Encountered(second, 66, "s99", True),
    ):
        third.say(server, air, answer)
    assert not gave_way(server)
    other.say(server, air, Encountered(second, 77, "s99", True))
    assert gave_way(server)
    assert verdict(server, air) == Dissolved(88, 77)


def test_an_answer_to_no_question_does_not_count() -> None:
    server, air = alone_with()
    other = Outsider(77)
    other.say(server, air, other.beacon(), Encountered(0, 77, "s99", True))
    assert air.now < server.settings.timing.beacon_us
    assert not gave_way(server)


def test_an_answer_that_comes_late_does_not_count() -> None:
    server, air = alone_with()
    other = Outsider(77)
    nonce = question(server, air, other)
    air.run(server.settings.timing.beacon_us + SECOND_US)
    other.say(server, air, Encountered(nonce, 77, "s99", True))
    air.run(SECOND_US)
    assert not gave_way(server)


@pytest.mark.parametrize("case", ["leaderless", "other name", "touched", "not leading"])
def test_whom_it_does_not_ask(case: str) -> None:
    server = lone(1, 88, touched=case == "touched", voters=3 if case == "not leading" else 1)
    air, other = Air(server), Outsider(77)
    leader, name = 0 if case == "leaderless" else 9, "barn" if case == "other name" else "shop"
    for _ in range(30):
        assert questions(other.say(server, air, other.beacon(leader, name))) == []
        air.run(SECOND_US)


def test_it_remembers_a_bounded_number_of_others() -> None:
    server, air = alone_with()
    bound = server.settings.limits.servers_max
    for cluster_id in range(1_000, 1_000 + 3 * bound):
        other = Outsider(cluster_id)
        other.say(server, air, other.beacon())
        air.run(10_000)
    assert len(server.engine._dissolving._others) == bound
    question(server, air, Outsider(77))


def test_only_a_cluster_with_a_leader_answers_such_a_question() -> None:
    server, air = alone_with()
    other, ask = Outsider(77), Encounter("shop", 5)
    assert other.say(server, air, ask) == [Encountered(5, 88, "s1", False)]
    assert other.say(server, air, Encounter("barn", 5)) == []
    for quiet in (lone(1, 88, voters=3), LoneServer(1)):
        assert other.say(quiet, Air(quiet), ask) == []
    touched = lone(1, 88, touched=True)
    air = Air(touched)
    air.run(10 * SECOND_US)
    assert other.say(touched, air, ask) == [Encountered(5, 88, "s1", True)]


def test_a_dissolving_cluster_says_that_nobody_leads() -> None:
    """Blank servers are not to join it, and no other cluster to give way to it."""
    server, air = alone_with()
    other, blank = Outsider(77), Outsider(0)
    nonce = question(server, air, other)
    assert blank.say(server, air, blank.beacon(0))[0].leader == 1
    other.say(server, air, Encountered(nonce, 77, "s99", True))
    assert blank.say(server, air, blank.beacon(0))[0].leader == 0
    assert other.say(server, air, Encounter("shop", 5)) == []


def test_a_client_is_told_why_nothing_is_taken() -> None:
    desk = Desk()
    desk.front.situation = Situation(True, False, True, NodeId(1), None, True)
    desk.ask(1)
    (answer,) = desk.said()
    assert isinstance(answer, NotTaken)
    assert (answer.reason, answer.detail) == (
        "no_leader",
        "this cluster is dissolving: another one of its name goes on",
    )


# --- stragglers -------------------------------------------------------------------------------


def test_a_straggler_is_told() -> None:
    """The others of its cluster are members of another now."""
    straggler = lone(1, 88, voters=3)
    member = LoneServer(2, log_of(77, 2, touched=True), remembered=[Dissolved(88, 77)])
    air = Air(straggler, member)
    assert air.run(10 * SECOND_US, lambda: verdict(straggler, air) == Dissolved(88, 77))
    assert member.told(ALARM) == [], "it is no cluster any more"
    assert member.engine.dissolved(air.now) is None


def test_a_blank_server_does_not_join_a_cluster_that_it_knows_to_be_gone() -> None:
    straggler = lone(1, 88, voters=3)
    blank = LoneServer(2, remembered=[Dissolved(88, 77)], joins=77)
    air = Air(straggler, blank)
    assert air.run(10 * SECOND_US, lambda: verdict(straggler, air) == Dissolved(88, 77))
    assert blank.told("found cluster") == []
    assert blank.engine.node.birth is not None
    assert blank.engine.node.birth.cluster_id == 77


def test_who_waits_for_a_cluster_that_is_gone_is_told() -> None:
    waiting = LoneServer(1, joins=88)
    member = LoneServer(2, log_of(77, 2, touched=True), remembered=[Dissolved(88, 77)])
    air = Air(waiting, member)
    assert air.run(10 * SECOND_US, lambda: waiting.engine.cluster_id == 77)
    assert waiting.told("is dissolved: looking for another") != []


def test_it_remembers_the_last_ones() -> None:
    gone = [Dissolved(cluster_id, 77) for cluster_id in range(100, 120)]
    member = LoneServer(2, log_of(77, 2, touched=True), remembered=gone)
    bound = member.settings.limits.dissolved_remembered
    assert member.engine.remembered == tuple(gone[-bound:])
    blank, air = Outsider(0), Air(member)
    heard = blank.say(member, air, blank.beacon(0))
    shown = [each for each in heard if isinstance(each, ClusterDissolved)]
    assert shown == [ClusterDissolved("shop", each.cluster_id, 77) for each in gone[-bound:]]


def test_a_client_of_a_cluster_that_is_gone_is_told() -> None:
    member = LoneServer(2, log_of(77, 2, touched=True), remembered=[Dissolved(88, 77)])
    client, air = Outsider(88), Air(member)
    assert client.say(member, air, Seek("shop")) == [ClusterDissolved("shop", 88, 77)]
    assert client.say(member, air, Seek("barn")) == []
    assert Outsider(66).say(member, air, Seek("shop")) == []


@pytest.mark.parametrize("case", ["other name", "other cluster", "own member", "no cluster"])
def test_what_is_no_word_of_the_own_end(case: str) -> None:
    straggler, outsider = lone(1, 88, voters=3), Outsider(88 if case == "own member" else 77)
    air = Air(straggler)
    air.run(SECOND_US)
    name = "barn" if case == "other name" else "shop"
    named = {"other cluster": 66, "no cluster": 0}.get(case, 88)
    outsider.say(straggler, air, ClusterDissolved(name, named, 77))
    assert verdict(straggler, air) is None


def test_a_cluster_that_has_a_leader_is_not_over_because_somebody_says_so() -> None:
    server, air = alone_with()
    Outsider(77).say(server, air, ClusterDissolved("shop", 88, 77))
    assert verdict(server, air) is None


def test_a_word_is_good_for_once() -> None:
    straggler, outsider = lone(1, 88, voters=3), Outsider(77)
    air = Air(straggler)
    air.run(SECOND_US)
    outsider.say(straggler, air, ClusterDissolved("shop", 88, 77))
    assert verdict(straggler, air) == Dissolved(88, 77)
    assert verdict(straggler, air) is None


def test_a_store_with_client_commands_is_never_given_up() -> None:
    entries = log_of(88, 1, touched=True, voters=3)
    machine = StateMachine()
    for entry in entries:
        machine.apply(entry)
    straggler, outsider = LoneServer(1, entries, machine=machine), Outsider(77)
    air = Air(straggler)
    for _ in range(100):
        air.run(SECOND_US)
        outsider.say(straggler, air, ClusterDissolved("shop", 88, 77))
        assert verdict(straggler, air) is None
    air.run(SECOND_US)
    alarms = straggler.told("is said to be dissolved")
    assert len(alarms) == 2, "once a minute"
    assert f"{88:016x}" in alarms[0]
