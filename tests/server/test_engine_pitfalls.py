"""The known traps that one whole server has to face."""

from __future__ import annotations

from lone_server import Air, LoneServer, log_of

MINUTE_US = 60_000_000


def test_two_clusters_of_one_name_meet() -> None:
    """Neither takes anything over; both say so, once a minute, and name the other.

    Both hold something of clients: of one that does not, see `test_dissolving_servers.py`.
    """
    servers = [
        LoneServer(number, log_of(cluster_id, number, touched=True))
        for number, cluster_id in ((1, 77), (2, 88))
    ]
    Air(*servers).run(3 * MINUTE_US)
    told = [server.told("another cluster is also named 'shop'") for server in servers]
    for at, foreign in enumerate((88, 77)):
        assert f"{foreign:016x}, server s{2 - at} at 10.0.0.{2 - at}:4747" in told[at][0]
        assert 2 <= len(told[at]) <= 3
    assert [server.engine.cluster_id for server in servers] == [77, 88]
    for server, id in zip(servers, (1, 2), strict=True):
        node = server.engine.node
        assert node.voters() == (id,)
        assert node.log.position(1) is not None
        assert node.log.dissolved is None
