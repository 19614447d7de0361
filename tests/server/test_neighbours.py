"""Processes on the same network that are none of this cluster's: said, and not for ever."""

from __future__ import annotations

from random import Random

import pytest
from lone_server import LoneServer, log_of

from distinv.core.events import Tell
from distinv.entry import NO_BALLOT, NodeId
from distinv.transport.api import Address
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Beacon
from distinv.wire.seal import KeySeal, PlainSeal, Seal

SECOND = 1_000_000
MINUTE = 60 * SECOND
THERE: Address = ("10.0.0.9", 4747)


def told_while(neighbour: Seal, cluster: str) -> list[Tell]:
    """What a server tells people while a neighbour announces itself for two minutes."""
    server = LoneServer(1, log_of(77, 1, touched=True))
    endpoint = Endpoint(
        self_id=NodeId(9),
        boot=9,
        seal=neighbour,
        random=Random(9),
        timing=server.settings.timing,
        limits=server.settings.limits,
        payload_bytes=1_200,
        cluster_id=88,
    )
    beacon = encode(Beacon(cluster, 88, "other", 0, None, NO_BALLOT, 0, 0, ()))
    for now in range(0, 2 * MINUTE, 5 * SECOND):
        endpoint.send_to(server.address, beacon, now)
        for _, data in endpoint.flush(now):
            server.engine.receive(data, THERE, now)
        server.turn(now)
    return [line for line in server.lines if "10.0.0.9:4747" in line.text]


def test_another_key_is_said_once_a_minute() -> None:
    """Every announcement of it would fill the log: it may be somebody else's cluster."""
    lines = told_while(KeySeal(bytes(32)), "shop")
    assert [line.level for line in lines] == ["warning"] * 2
    assert "this process has no key" in lines[0].text


@pytest.mark.parametrize("cluster", ["depot", "shop"])
def test_another_cluster_is_an_alarm_only_if_it_has_the_same_name(cluster: str) -> None:
    lines = told_while(PlainSeal(), cluster)
    assert any("it belongs to cluster" in line.text for line in lines if line.level == "debug")
    loud = [line for line in lines if line.level != "debug"]
    assert bool(loud) == (cluster == "shop")
    assert all("is also named 'shop'" in line.text for line in loud)
