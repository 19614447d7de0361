"""The server list: one and the same on every server, at every change at once."""

from __future__ import annotations

import pytest
from roster_stage import Shop, info_of, shown, status

from distinv.entry import Ballot, NodeId
from distinv.server.vacancy import Vacancy
from distinv.wire.messages import Servers

SOON_US = 10_000
"""Several exchanges on this network, and much less than any time after which one looks again."""


def same_everywhere(shop: Shop) -> bool:
    lists = [shown(server) for server in shop.servers if server.alive]
    return all(each == lists[0] for each in lists)


def test_every_server_shows_the_learner() -> None:
    """A follower knew the voters and itself."""
    shop = Shop(4)
    leader = shop.settle()
    shop.until(lambda: len(shown(leader)) == 4)
    shop.run_for(SOON_US)
    assert sorted(shown(leader).values()) == [
        ("follower", True),
        ("follower", True),
        ("leader", True),
        ("learner", False),
    ]
    assert same_everywhere(shop)


def test_every_change_reaches_every_server_at_once() -> None:
    """Joins, promotions, a death that is noticed, a return, and a vote taken away."""
    shop = Shop(5, late=(3, 4))
    leader = shop.settle()
    shop.run_for(1_000_000)
    before = shown(leader)

    def changed(what: str, within_us: int) -> None:
        nonlocal before
        shop.until(lambda: shown(leader) != before, within_us)
        shop.run_for(SOON_US)
        assert same_everywhere(shop), what
        before = shown(leader)

    newcomer = shop.servers[3]
    shop.start(newcomer)
    changed("a join", 5_000_000)
    assert before["server-3"] == ("learner", False)
    shop.start(shop.servers[4])
    changed("another join", 5_000_000)
    changed("two promotions", 5_000_000)
    assert before["server-3"] == before["server-4"] == ("follower", True)
    shop.run_for(1_000_000)
    assert shown(leader) == before
    newcomer.crash()
    changed("a death", 2 * shop.timing.quorum_us)
    assert before["server-3"] == ("unreachable", True)
    shop.start(newcomer)
    changed("a return", 2 * shop.timing.quorum_us)
    assert before["server-3"] == ("follower", True)
    leader.order(newcomer.node_id, votes=False)
    changed("a vote taken away", 2_000_000)
    assert before["server-3"] == ("learner", False)


def test_the_till_sees_what_the_servers_see() -> None:
    shop = Shop(4, late=(3,))
    leader = shop.settle()
    shop.put_mugs()
    shop.start(shop.servers[3])
    shop.until(lambda: len(shown(leader)) == 4)
    shop.run_for(SOON_US)
    seen = {each.name: (each.role, each.votes) for each in shop.till.session.servers}
    assert seen == shown(leader)
    shop.servers[3].crash()
    shop.until(lambda: shown(leader)["server-3"] == ("unreachable", False))
    shop.run_for(SOON_US)
    assert {each.name: each.role for each in shop.till.session.servers}["server-3"] == "unreachable"


def test_what_a_link_lost_is_given_again() -> None:
    """The list of the leader was under way when the follower's process ended."""
    shop = Shop(4)
    leader = shop.settle()
    shop.until(lambda: len(shown(leader)) == 4)
    shop.run_for(1_000_000)
    follower = next(each for each in shop.servers if not each.leads)
    follower.crash()
    shop.start(follower)  # before anybody has missed it
    shop.run_for(1_000_000)
    assert shown(follower) == shown(leader)


def test_a_list_is_taken_from_leaders_only() -> None:
    shop = Shop(3)
    leader = shop.settle()
    shop.run_for(1_000_000)
    one, other = (each for each in shop.servers if not each.leads)
    assert one.engine is not None
    roster = one.engine._presence.roster
    before = shown(one)
    lied = status(other)
    infos = lied.servers[:1]
    for source, message in (
        (other.node_id, Servers(leader.node_id, lied.ballot, infos)),
        (other.node_id, Servers(other.node_id, lied.ballot, infos)),
        (leader.node_id, Servers(leader.node_id, Ballot(0, leader.node_id), infos)),
    ):
        roster.on_servers(source, message)
        assert shown(one) == before


# --- who has no leader ------------------------------------------------------------------------


def test_without_a_quorum_servers_say_since_when() -> None:
    shop = Shop(3)
    leader = shop.settle()
    shop.run_for(1_000_000)
    assert [status(server).no_quorum_us for server in shop.servers] == [0, 0, 0]
    others = [each for each in shop.servers if each is not leader]
    for server in others:
        server.crash()
    shop.until(lambda: not leader.leads)
    stepped_down = shop.world.now
    shop.run_for(3_000_000)
    said = status(leader).no_quorum_us
    passed = shop.world.now - stepped_down
    turns_us = 2 * shop.timing.beacon_unjoined_us  # it announces itself, so it takes turns
    assert passed - turns_us <= said <= passed + 1_000
    assert status(leader).leader == 0
    assert {shown(leader)[each.name][0] for each in others} == {"unreachable"}
    for server in others:
        shop.start(server)
    shop.until(lambda: any(server.leads for server in shop.servers))
    shop.run_for(SOON_US)
    assert [status(server).no_quorum_us for server in shop.servers] == [0, 0, 0]


def test_others_tell_who_has_no_leader() -> None:
    """Its announcements reach them, its acknowledgements do not."""
    shop = Shop(3)
    leader = shop.settle()
    shop.run_for(1_000_000)
    deaf, hears = (each for each in shop.servers if not each.leads)
    for other in shop.servers:
        if other is not deaf:
            shop.world.block(other.host, deaf.host, 1 << 62)
    shop.until(lambda: status(deaf).no_quorum_us > 2_000_000)
    said = info_of(leader, deaf).no_quorum_us
    assert said is not None
    assert abs(said - status(deaf).no_quorum_us) <= 2 * shop.timing.beacon_unjoined_us
    assert info_of(leader, hears).no_quorum_us == 0
    assert info_of(leader, deaf).role == "unreachable"


def test_the_lag_of_who_was_away_is_told() -> None:
    shop = Shop(3)
    leader = shop.settle()
    shop.put_mugs()
    away, stays = (each for each in shop.servers if each is not leader)
    shop.run_for(SOON_US)
    before = status(leader).commit
    away.crash()
    shop.put_mugs()
    missed = status(leader).commit - before
    assert info_of(leader, away).lag == missed > 0
    shop.run_for(2 * shop.timing.beacon_us)
    assert info_of(stays, away).lag == missed
    assert info_of(stays, away).role == "unreachable"
    shop.start(away)
    shop.until(lambda: info_of(leader, away).lag == 0)


@pytest.mark.parametrize("serving", [False, True])
def test_being_elected_alone_ends_no_vacancy(serving: bool) -> None:
    me, other = NodeId(1), NodeId(2)
    vacancy = Vacancy(me, 100)
    assert vacancy.lasts_us(100) == 1
    vacancy.on_leader(other, serving=False, now=200)
    assert vacancy.lasts_us(300) == 0
    vacancy.on_leader(None, serving=False, now=400)
    vacancy.on_leader(me, serving=serving, now=500)
    vacancy.on_leader(None, serving=False, now=600)
    assert vacancy.lasts_us(1_000) == (400 if serving else 600)
