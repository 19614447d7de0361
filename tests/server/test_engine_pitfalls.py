"""The known traps that one whole server has to face."""

from __future__ import annotations

from random import Random

from distinv import config
from distinv.core.events import Tell
from distinv.entry import NO_BALLOT, ORIGIN, EntryKind, NodeId, Voter, VoterSet, encode_voters
from distinv.entry import make_entry as next_entry
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import StateMachine
from distinv.multicast.fanout import fanout
from distinv.server.engine import Engine, Settings
from distinv.storage.api import EntryRecord, IdentityRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.transport.api import Address
from distinv.wire.endpoint import Endpoint
from distinv.wire.seal import PlainSeal

EVERYBODY: Address = ("255.255.255.255", 4746)
MINUTE_US = 60_000_000


def server_of(cluster_id: int, number: int) -> Engine:
    """The one server of a cluster named "shop"."""
    settings, id = config.test(), NodeId(number)
    voters = VoterSet("shop", cluster_id, (Voter(id, f"s{number}"),))
    birth = next_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(voters))
    storage = MemoryStorage()
    storage.recover()
    storage.commit([IdentityRecord(id, "shop"), EntryRecord(birth)])
    storage.crash()
    random = Random(number)
    return Engine(
        self_id=id,
        settings=Settings("shop", f"s{number}", 1, "silent"),
        config=settings,
        recovered=storage.recover(),
        machine=StateMachine(":memory:", settings.limits),
        check_command=decode_command_untrusted,
        read_log=storage.read,
        endpoint=Endpoint(
            self_id=id,
            boot=number,
            seal=PlainSeal(),
            random=random,
            timing=settings.timing,
            limits=settings.limits,
            payload_bytes=1_200,
        ),
        election=Silent,
        multicast=fanout,
        targets=lambda: [EVERYBODY],
        random=random,
        now=0,
    )


def alarms(lines: list[Tell]) -> list[str]:
    return [line.text for line in lines if "another cluster is also named 'shop'" in line.text]


def test_two_clusters_of_one_name_meet() -> None:
    """Neither takes anything over; both say so, once a minute, and name the other."""
    servers = [server_of(cluster_id=77, number=1), server_of(cluster_id=88, number=2)]
    told: list[list[str]] = [[], []]
    for now in range(0, 3 * MINUTE_US, 100_000):
        for at, (one, other) in enumerate((servers, servers[::-1])):
            due = one.deadline()
            if due is not None and due <= now:
                one.on_deadline(now)
            turn = one.end_turn(now)
            told[at] += alarms(turn.lines)
            for target, data in turn.datagrams:
                if target == EVERYBODY:
                    other.receive(data, ("10.0.0.1", 4747), now)
    for at, foreign in enumerate((88, 77)):
        assert f"{foreign:016x}, server s{2 - at} at 10.0.0.1:4747" in told[at][0]
        assert 2 <= len(told[at]) <= 3
    assert [server.cluster_id for server in servers] == [77, 88]
    assert [server.node.log.position(1) for server in servers] != [None, None]
    assert servers[0].node.voters() == (1,)
    assert servers[1].node.voters() == (2,)
