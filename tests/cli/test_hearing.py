"""Hearing whoever announces itself at the beacon port, and being heard by nobody."""

from __future__ import annotations

import socket
from collections.abc import Callable
from random import Random

import anyio
import pytest
from attrs import evolve

from distinv.cli.hearing import Hearing, refused_of
from distinv.config import Config, lan
from distinv.discovery.beacon import LOOPBACK_BROADCAST
from distinv.entry import NO_BALLOT, NodeId
from distinv.testing.ports import free_port
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Beacon, Seek
from distinv.wire.seal import KeySeal, PlainSeal, Seal

pytestmark = pytest.mark.anyio

DEADLINE_S = 20.0
ADDRESS = ("10.0.0.7", 4747)


def config_with(port: int) -> Config:
    config = lan()
    return evolve(config, network=evolve(config.network, beacon_port=port))


def beacon(cluster: str = "shop", name: str = "north", cluster_id: int = 7) -> Beacon:
    return Beacon(cluster, cluster_id, name, 0, None, NO_BALLOT, 0, 3, (), 2, 4)


def datagrams(
    *bodies: bytes, node: int = 5, boot: int = 6, seal: Seal | None = None
) -> list[bytes]:
    """What a server sends to everybody."""
    config = lan()
    endpoint = Endpoint(
        self_id=NodeId(node),
        boot=boot,
        seal=seal or PlainSeal(),
        random=Random(node),
        timing=config.timing,
        limits=config.limits,
        payload_bytes=1_200,
        cluster_id=7,
    )
    for body in bodies:
        endpoint.send_to(ADDRESS, body, 0)
    return [data for _, data in endpoint.flush(0)]


def heard(*sent: bytes, key: bytes | None = None) -> Hearing:
    hearing = Hearing(lan(), key)
    for data in sent:
        hearing.hear((data, ADDRESS))
    return hearing


def test_who_announces_itself_is_kept() -> None:
    hearing = heard(*datagrams(encode(beacon())), *datagrams(encode(beacon("depot")), node=9))
    first, second = hearing.servers
    assert (first.node, first.boot, first.address) == (5, 6, ADDRESS)
    assert (first.name, first.cluster, first.cluster_id) == ("north", "shop", 7)
    assert (first.expect, first.speaks) == (3, (2, 4))
    assert second.cluster == "depot"


def test_the_last_word_of_a_process_counts() -> None:
    said = [encode(beacon(cluster_id=0)), encode(beacon(cluster_id=7))]
    (server,) = heard(*datagrams(*said)).servers
    assert server.cluster_id == 7


def test_what_is_no_announcement_says_nothing() -> None:
    sent = datagrams(encode(Seek("shop")), b"no message")
    assert heard(*sent, b"", b"no datagram").servers == ()


def test_another_key_is_noticed() -> None:
    hearing = heard(*datagrams(encode(beacon()), seal=KeySeal(bytes(32))) * 2)
    assert hearing.servers == ()
    (notice,) = hearing.notices
    assert (notice.kind, notice.address) == ("wrong_key", ADDRESS)
    assert "this process has no key" in notice.detail


def test_two_runs_of_one_id_are_asked_whether_they_are_there() -> None:
    hearing = heard(*datagrams(encode(beacon())), *datagrams(encode(beacon()), boot=7))
    assert len(hearing.servers) == 2
    assert hearing.doubled == [], "at one place there is one process at a time"
    (other,) = datagrams(encode(beacon()), boot=8)
    hearing.hear((other, ("10.0.0.8", 4747)))
    assert set(hearing.doubled) == {ADDRESS, ("10.0.0.8", 4747)}


def test_a_flood_of_announcements_is_bounded() -> None:
    hearing = Hearing(lan(), None)
    for node in range(1, 200):
        (data,) = datagrams(encode(beacon()), node=node)
        hearing.hear((data, ADDRESS))
    assert len(hearing.servers) == lan().limits.servers_max
    assert hearing.servers[-1].node == 199
    sealed = datagrams(encode(beacon()), seal=KeySeal(bytes(32)))
    for port in range(1, 1_000):
        hearing.hear((sealed[0], ("10.0.0.9", port)))
    assert len(hearing.notices) == lan().limits.notices_max


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await anyio.sleep(0.005)


async def test_it_shares_the_port_with_servers() -> None:
    """And with other doctors; each hears everything."""
    port = free_port()
    one, other = Hearing(config_with(port), None), Hearing(config_with(port), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        async with anyio.create_task_group() as group:
            for hearing in (one, other):
                group.start_soon(lambda hearing=hearing: hearing.listen(insecure=False))
            await anyio.wait_all_tasks_blocked()
            server.sendto(datagrams(encode(beacon()))[0], (LOOPBACK_BROADCAST, port))
            await eventually(lambda: bool(one.servers and other.servers))
            group.cancel_scope.cancel()
    assert one.deaf == ""


async def test_a_port_that_somebody_keeps_to_himself_is_said() -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as greedy:
        greedy.bind((LOOPBACK_BROADCAST, port))
        hearing = Hearing(config_with(port), None)
        with anyio.fail_after(DEADLINE_S):
            await hearing.listen(insecure=False)
    assert f"the beacon port {port}/udp is held by a program that does not share it" in hearing.deaf


async def test_where_nobody_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as somebody:
        somebody.bind(("127.0.0.1", 0))
        here, nowhere = somebody.getsockname(), ("127.0.0.1", free_port())
        assert await refused_of([here, nowhere, nowhere], lan().network) == (nowhere,)
