"""One whole server without I/O: what its parts cannot show alone."""

from __future__ import annotations

from random import Random

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
from distinv.multicast.fanout import fanout
from distinv.server.engine import Engine, Settings
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.wire.endpoint import Endpoint
from distinv.wire.messages import Pull
from distinv.wire.seal import PlainSeal

ME, PEER = NodeId(1), NodeId(2)
EVERYBODY = ("255.255.255.255", 4746)
ONE = Ballot(1, ME)


class Contexts:
    """An election factory that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[ElectionContext] = []

    def __call__(self, context: ElectionContext) -> Silent:
        self.seen.append(context)
        return Silent(context)


def engine(
    storage: MemoryStorage, settings: Config, election: Contexts | None = None, seed: int = 1
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
        multicast=fanout,
        targets=lambda: [EVERYBODY],
        random=random,
        now=0,
    )


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
