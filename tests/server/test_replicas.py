"""A till beside servers without a vote, and one whose servers are all replaced under it."""

from __future__ import annotations

from roster_stage import Shop, level_of, shown, status

from distinv.errors import Unavailable
from distinv.inventory import calls
from distinv.testing.simulator.servers import SimServer


def keep_from_till(shop: Shop, servers: list[SimServer]) -> None:
    for server in servers:
        shop.world.block(shop.till.host, server.host, 1 << 62)
        shop.world.block(server.host, shop.till.host, 1 << 62)


def test_a_replica_serves_linearizable_reads() -> None:
    """It is the only server in the till's reach: it asks the leader, which the till cannot."""
    shop = Shop(4)
    leader = shop.settle()
    shop.put_mugs()
    shop.until(lambda: ("learner", False) in shown(leader).values())
    (replica,) = (each for each in shop.servers if shown(leader)[each.name][0] == "learner")
    keep_from_till(shop, [each for each in shop.servers if each is not replica])
    read = shop.ends(shop.till.ask(calls.level("mug"), linearizable=True))
    assert level_of(read) == (5, status(leader).seq)
    assert shop.till.session.home == replica.node_id
    seen = {each.name: each.role for each in shop.till.session.servers}
    assert (seen[leader.name], seen[replica.name]) == ("leader", "learner")
    write = shop.ends(shop.till.submit(calls.ship({"mug": 1}), seconds=1))
    assert isinstance(write.error, Unavailable)
    shop.world.mend()
    assert shop.ends(shop.till.submit(calls.receive({"mug": 1}))).error is None
    assert shop.till.session.home == leader.node_id


def test_a_replica_that_hears_no_leader_reads_what_it_has() -> None:
    shop = Shop(4)
    leader = shop.settle()
    shop.put_mugs()
    shop.until(lambda: ("learner", False) in shown(leader).values())
    (replica,) = (each for each in shop.servers if shown(leader)[each.name][0] == "learner")
    shop.until(lambda: status(replica).seq == status(leader).seq)
    keep_from_till(shop, [each for each in shop.servers if each is not replica])
    shop.part([replica])
    shop.until(lambda: status(replica).no_quorum_us > 0)
    read = shop.ends(shop.till.ask(calls.level("mug"), linearizable=False))
    assert level_of(read) == (5, status(replica).seq)
    read = shop.ends(shop.till.ask(calls.level("mug"), linearizable=True, seconds=1))
    assert isinstance(read.error, Unavailable)


def test_a_till_outlives_all_the_servers_it_knew() -> None:
    """One after the other is replaced; what the till was told of the first ones is worth nothing
    by then. Its calls go on, and its list is that of the cluster."""
    shop = Shop(6, late=(3, 4, 5))
    shop.settle()
    shop.put_mugs()
    first = shop.servers[:3]
    for newcomer in shop.servers[3:]:
        shop.start(newcomer)
        shop.until(
            lambda: len([s for s in shop.servers if s.alive]) == len(shown(shop.settle())),
            2 * shop.timing.link_idle_us,  # so long one that went without a word is shown
        )
        leaver = next(each for each in first if each.alive)
        leaver.leave()
        shop.until(lambda: leaver.left)  # noqa: B023
        leaver.crash()
        call = shop.till.submit(calls.receive({"mug": 1}))
        assert shop.ends(call).error is None
    shop.until(lambda: sum(votes for _, votes in shown(shop.settle()).values()) == 3, 120_000_000)
    read = shop.ends(shop.till.ask(calls.level("mug"), linearizable=True))
    assert level_of(read)[0] == 8
    assert shop.till.session.home in [each.node_id for each in shop.servers[3:]]
    shop.run_for(2 * shop.timing.link_idle_us)
    assert shop.ends(shop.till.submit(calls.receive({"mug": 1}))).error is None
    shop.run_for(100_000)
    names = {each.name for each in shop.till.session.servers}
    assert names == set(shown(shop.settle())) == {each.name for each in shop.servers[3:]}
