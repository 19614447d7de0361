"""One whole server without I/O: what its parts cannot show alone."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from attrs import evolve

from distinv import config
from distinv.config import Config, Limits
from distinv.core import events
from distinv.election.api import ElectionContext
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    Ballot,
    EntryKind,
    NodeId,
    Voter,
    VoterSet,
    encode_voters,
    make_entry,
)
from distinv.inventory.commands import decode_command_untrusted
from distinv.inventory.machine import StateMachine
from distinv.multicast.api import (
    Deliver,
    Group,
    MulticastAction,
    MulticastFactory,
)
from distinv.multicast.fanout import fanout
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.engine import Engine
from distinv.server.settings import Settings
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.transport.api import Address
from distinv.wire.codec import encode
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Append, MulticastBody, Ping, Pull
from distinv.wire.seal import PlainSeal

ME, PEER = NodeId(1), NodeId(2)
EVERYBODY = ("255.255.255.255", 4746)
ONE = Ballot(1, ME)
SERVER: Address = ("10.0.0.1", 4747)


class Contexts:
    """An election factory that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[ElectionContext] = []

    def __call__(self, context: ElectionContext) -> Silent:
        self.seen.append(context)
        return Silent(context)


def engine(
    storage: MemoryStorage,
    settings: Config,
    election: Contexts | None = None,
    seed: int = 1,
    multicast: MulticastFactory = fanout,
) -> Engine:
    random = Random(seed)
    endpoint = Endpoint(
        self_id=ME,
        boot=5,
        seal=PlainSeal(),
        random=random,
        timing=settings.timing,
        limits=settings.limits,
        payload_bytes=1_200,
    )
    depot = MemoryDepot(settings.limits)
    return Engine(
        self_id=ME,
        settings=Settings("shop", "s1", 1, "silent"),
        config=settings,
        recovered=storage.recover(),
        machine=StateMachine(":memory:", settings.limits),
        check_command=decode_command_untrusted,
        read_log=storage.read,
        endpoint=endpoint,
        election=election or Contexts(),
        multicast=multicast,
        targets=lambda: [EVERYBODY],
        random=random,
        now=0,
        make_snapshot=depot.maker,
        pieces=depot,
    )


def born(storage: MemoryStorage) -> MemoryStorage:
    """What a voter of three has on its disk."""
    voters = VoterSet("shop", 77, tuple(Voter(NodeId(id), f"s{id}") for id in (1, 2, 3)))
    birth = make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(voters))
    storage.recover()
    storage.commit([IdentityRecord(ME, "shop"), EntryRecord(birth)])
    storage.crash()
    return storage


def test_nobody_is_told_an_id_that_a_crash_would_take_away() -> None:
    """Two of three proposed ids once vanished in their first crash: a cluster for ever unborn."""
    storage = MemoryStorage()
    server = engine(storage, config.test())
    server.on_deadline(0)
    turn = server.end_turn(0)
    assert turn.write is not None
    assert turn.datagrams == []
    ticket = storage.stage(turn.write.records)
    server.on_deadline(10_000)
    assert server.end_turn(10_000).datagrams == []
    storage.make_durable(ticket)
    server.persisted(turn.write.ticket, 20_000)
    server.on_deadline(20_000)
    assert [address for address, _ in server.end_turn(20_000).datagrams] == [EVERYBODY]


def test_a_catch_up_reads_no_further_than_the_disk_has_got() -> None:
    """What is not in memory any more was read from storage up to the last entry, which was still
    being written: the leader stopped with a storage error."""
    limits = evolve(Limits(), log_cache_bytes=0)
    settings = evolve(config.test(), limits=limits)
    voters = VoterSet("shop", 77, (Voter(ME, "s1"),))
    entries = [make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, encode_voters(voters))]
    for _ in range(5):
        entries.append(make_entry(entries[-1].position, ONE, 0, EntryKind.NOOP, b"x"))
    storage = MemoryStorage()
    storage.recover()
    storage.commit([IdentityRecord(ME, "shop"), PromiseRecord(ONE), *map(EntryRecord, entries)])
    storage.crash()
    server = engine(storage, settings)
    node = server.node
    node.advance_commit(6)
    server.commit = 6
    while server.apply_waiting:
        server.apply_more(0)
    assert node.log.body(3) is None
    node.raise_promise(Ballot(2, ME))
    node.append(make_entry(node.log.last, Ballot(2, ME), 0, EntryKind.NOOP, b""))
    assert node.durability.durable_index == 6
    pull = Pull(Ballot(3, PEER), entries[1].position, 7, Ballot(2, ME))
    for effect in node.step(events.Received(PEER, pull), 0):
        server._do(effect, 0)


def test_a_plugin_has_a_chance_of_its_own() -> None:
    """It may seed it as it likes: cluster ids and back-off stay chance."""
    contexts, storage = Contexts(), MemoryStorage()
    server = engine(storage, config.test(), contexts)
    (context,) = contexts.seen
    assert context.random is not server.node.random
    before = server.node.random.getstate()
    context.random.seed(0)
    assert server.node.random.getstate() == before


class Holding:
    """A multicast that keeps what arrives until its deadline, or until somebody says "now"."""

    def __init__(self) -> None:
        self.held: list[MulticastAction] = []
        self.due: int | None = None

    def on_send(self, peers: Sequence[NodeId], body: bytes, now: int) -> list[MulticastAction]:
        return [Group(body)]

    def on_message(self, source: NodeId, body: bytes, now: int) -> list[MulticastAction]:
        if body == b"now":
            return self._release()
        self.held.append(Deliver(source, body))
        return []

    def on_peer_lost(self, peer: NodeId, now: int) -> list[MulticastAction]:
        return []

    def on_deadline(self, now: int) -> list[MulticastAction]:
        self.due = None
        return self._release()

    def deadline(self) -> int | None:
        return self.due

    def _release(self) -> list[MulticastAction]:
        held, self.held = self.held, []
        return held


def peer_of(server: Engine, id: NodeId, address: Address) -> Endpoint:
    """Another process, which `server` has met."""
    settings = config.test()
    peer = Endpoint(
        self_id=id,
        boot=int(id) + 100,
        seal=PlainSeal(),
        random=Random(id),
        timing=settings.timing,
        limits=settings.limits,
        payload_bytes=1_200,
    )
    peer.connect(ME, SERVER, 0)
    for _ in range(3):
        for _, data in peer.flush(0):
            server.receive(data, address, 0)
        for _, data in server.endpoint.flush(0):
            peer.receive_untrusted(data, SERVER, 0)
    assert server.endpoint.connected(id)
    return peer


@pytest.mark.parametrize("released_by", ["another peer", "a deadline"])
def test_a_multicast_delivers_under_the_name_of_the_sender_and_whenever(released_by: str) -> None:
    """What was held back came as from whoever released it, or, by a deadline, not at all."""
    multicast = Holding()
    server = engine(born(MemoryStorage()), config.test(), multicast=lambda context: multicast)
    addresses: dict[NodeId, Address] = {id: (f"10.0.0.{id}", 4747) for id in (PEER, NodeId(3))}
    peers = {id: peer_of(server, id, address) for id, address in addresses.items()}

    def say(id: NodeId, body: bytes) -> None:
        peers[id].send_to(SERVER, encode(MulticastBody(body)), 1_000)
        for _, data in peers[id].flush(1_000):
            server.receive(data, addresses[id], 1_000)

    two = Ballot(2, PEER)
    say(PEER, encode(Append(two, server.node.log.last, (), 0, 0)))
    say(PEER, encode(Ping(1)))  # nothing that is multicast, and no way in for it
    assert server.node.leader is None
    if released_by == "a deadline":
        multicast.due = 2_000
        server.on_deadline(2_000)
    else:
        say(NodeId(3), b"now")
    assert server.node.leader == PEER
    assert server.node.leader_ballot == two
    assert not server.front.clients
