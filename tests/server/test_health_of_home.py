"""A till whose server is cut off from the others: it goes as soon as the server says so."""

from __future__ import annotations

import pytest
from roster_stage import Shop, level_of, status

from distinv.errors import Unavailable
from distinv.inventory import calls


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_a_home_without_a_quorum_is_left_within_a_heartbeat(who: str, seed: int) -> None:
    """And the till does not come back to it while another serves."""
    shop = Shop(3, seed=seed)
    leader = shop.settle()
    shop.put_mugs()
    home = leader
    if who == "follower":
        shop.world.block(shop.till.host, leader.host, 1 << 62)
        assert shop.ends(shop.till.ask(calls.level("mug"), linearizable=True)).error is None
        home = shop.server_of(shop.till.session.home)
        assert home is not leader
        shop.world.unblock(shop.till.host, leader.host)
    assert shop.till.session.home == home.node_id
    shop.part([home])
    shop.until(lambda: status(home).leader == 0)
    if who == "leader":
        # Its clients wait with it until the others have a leader, which they have by now or soon.
        shop.until(lambda: any(each.leads for each in shop.servers))
    said_at = shop.world.now
    shop.until(lambda: shop.till.session.home not in (None, home.node_id))
    assert shop.world.now - said_at <= shop.timing.heartbeat_us
    homes = len(shop.till.homes)
    assert shop.ends(shop.till.submit(calls.receive({"mug": 1}))).error is None
    shop.run_for(20_000_000)
    assert home.node_id not in shop.till.homes[homes:]
    assert shop.ends(shop.till.submit(calls.receive({"mug": 1}))).error is None
    assert shop.till.session.home != home.node_id


def test_what_only_a_server_without_a_quorum_can_tell_is_read_there() -> None:
    """Local reads go on and say as of which seq; all else ends as unavailable in its time."""
    shop = Shop(3)
    home = shop.settle()
    shop.put_mugs()
    shop.part([home])
    for other in shop.servers:
        if other is not home:
            shop.world.block(shop.till.host, other.host, 1 << 62)
            shop.world.block(other.host, shop.till.host, 1 << 62)
    shop.until(lambda: status(home).leader == 0)
    seq = status(home).seq
    write = shop.till.submit(calls.ship({"mug": 1}), seconds=4)
    fresh = shop.till.ask(calls.level("mug"), linearizable=False, seconds=1)
    strict = shop.till.ask(calls.level("mug"), linearizable=True, seconds=3)
    assert level_of(shop.ends(fresh)) == (5, seq)
    for _ in range(5):
        shop.run_for(500_000)
        asked_at = shop.world.now
        local = shop.ends(shop.till.ask(calls.level("mug"), linearizable=False, seconds=1))
        assert level_of(local) == (5, seq)
        assert shop.world.now - asked_at <= shop.timing.heartbeat_us
    assert isinstance(shop.ends(strict).error, Unavailable)
    assert isinstance(shop.ends(write).error, Unavailable)
    seen = {each.name: each.role for each in shop.till.session.servers}
    assert seen.pop(home.name) in ("follower", "candidate")
    assert list(seen.values()) == ["unreachable", "unreachable"]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("spared", [False, True])
def test_a_majority_that_comes_back_is_served_at_once(seed: int, spared: bool) -> None:
    """A leader told its clients that it leads before it served, and not when it did: what they
    sent at once was refused, and sent again after the pause of a long outage (900 ms)."""
    shop = Shop(3, seed=seed)
    leader = shop.settle()
    shop.put_mugs()
    others = [each for each in shop.servers if each is not leader]
    killed = others if spared else [leader, others[0]]
    before = [shop.till.submit(calls.ship({"mug": 1}), seconds=60) for _ in range(2)]
    for server in killed:
        server.crash()
    after = [shop.till.submit(calls.receive({"mug": 1}), seconds=60) for _ in range(2)]
    shop.run_for(3_000_000 + seed * 37_123)
    for server in killed:
        shop.start(server)
    shop.until(lambda: any(server.leads for server in shop.servers))
    serves_at = shop.world.now
    for number in (*before, *after):
        assert shop.ends(number).error is None
    assert shop.world.now - serves_at <= shop.timing.heartbeat_us
    level = shop.ends(shop.till.ask(calls.level("mug"), linearizable=True))
    assert level_of(level)[0] == 5
