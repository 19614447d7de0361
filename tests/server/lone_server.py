"""Whole servers, most often alone in their cluster, and the air between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from distinv import config
from distinv.core.events import Tell
from distinv.entry import (
    NO_BALLOT,
    ORIGIN,
    Ballot,
    Entry,
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
from distinv.runtime.snapshots import MemoryDepot
from distinv.server.dissolving import Dissolved
from distinv.server.engine import Engine, Turn
from distinv.server.settings import Settings
from distinv.storage.api import EntryRecord, IdentityRecord, PromiseRecord
from distinv.storage.memory import MemoryStorage
from distinv.testing.simulator.hostile import Silent
from distinv.transport.api import Address
from distinv.wire.batch import OpenCommand, encode_batch
from distinv.wire.endpoint import Endpoint
from distinv.wire.seal import PlainSeal

EVERYBODY: Address = ("255.255.255.255", 4746)


def log_of(cluster_id: int, number: int, *, touched: bool, voters: int = 1) -> list[Entry]:
    """Of a cluster of `voters` servers, with ids from `number` on: born, and touched or not."""
    members = tuple(Voter(number + each, f"s{number + each}") for each in range(voters))
    payload = encode_voters(VoterSet("shop", cluster_id, members))
    entries = [make_entry(ORIGIN, NO_BALLOT, 0, EntryKind.VOTERS, payload)]
    if touched:
        batch = encode_batch([OpenCommand(5, "till")])
        ballot = Ballot(1, number)
        entries.append(make_entry(entries[0].position, ballot, 1, EntryKind.COMMANDS, batch))
    return entries


class LoneServer:
    """A server named "s<number>", its disk, and a driver."""

    expect = 1

    def __init__(
        self,
        number: int,
        entries: Sequence[Entry] = (),
        *,
        remembered: Sequence[Dissolved] = (),
        joins: int = 0,
        machine: StateMachine | None = None,
    ) -> None:
        """Blank without `entries`."""
        self.settings, self.id, self.name = config.test(), NodeId(number), f"s{number}"
        self.address: Address = (f"10.0.0.{number}", 4747)
        self.lines: list[Tell] = []
        storage = MemoryStorage()
        storage.recover()
        if entries:
            promise = PromiseRecord(entries[-1].ballot)
            storage.commit([IdentityRecord(self.id, "shop"), promise, *map(EntryRecord, entries)])
        storage.crash()
        self.storage = storage
        self.boots = 0
        self.open(0, remembered=remembered, joins=joins, machine=machine)

    def open(
        self,
        now: int,
        *,
        remembered: Sequence[Dissolved] = (),
        joins: int = 0,
        machine: StateMachine | None = None,
    ) -> None:
        """Begin with what the disk holds; a store in memory applies it anew."""
        self.boots += 1
        timing, limits = self.settings.timing, self.settings.limits
        random, depot = Random(f"{self.id} {self.boots}"), MemoryDepot(limits)
        self.engine = Engine(
            self_id=self.id,
            settings=Settings("shop", self.name, self.expect, "silent"),
            config=self.settings,
            recovered=self.storage.recover(),
            machine=machine or StateMachine(":memory:", limits),
            check_command=decode_command_untrusted,
            read_log=self.storage.read,
            endpoint=Endpoint(
                self_id=self.id,
                boot=self.id * 1_000 + self.boots,
                seal=PlainSeal(),
                random=random,
                timing=timing,
                limits=limits,
                payload_bytes=1_200,
            ),
            election=Silent,
            multicast=fanout,
            targets=lambda: [EVERYBODY],
            random=random,
            now=now,
            make_snapshot=depot.maker,
            pieces=depot,
            remembered=remembered,
            joins=joins,
        )

    def turn(self, now: int) -> list[tuple[Address, bytes]]:
        """What it says; what it has written is durable before it says the next."""
        engine = self.engine
        if engine.deadline() <= now:
            engine.on_deadline(now)
        turn = self._end_turn(now)
        sent = list(turn.datagrams)
        while turn.write is not None or engine.apply_waiting:
            if turn.write is not None:
                self.storage.commit(turn.write.records)
                engine.persisted(turn.write.ticket, now)
            while engine.apply_waiting:
                engine.apply_more(now)
            turn = self._end_turn(now)
            sent += turn.datagrams
        return sent

    def _end_turn(self, now: int) -> Turn:
        turn = self.engine.end_turn(now)
        self.lines += turn.lines
        return turn

    def told(self, text: str) -> list[str]:
        return [line.text for line in self.lines if text in line.text]


class Air:
    """Everybody hears everybody, at once."""

    def __init__(self, *servers: LoneServer) -> None:
        self.servers = list(servers)
        self.now = 0
        self.deaf: list[LoneServer] = []
        """Hear nothing but what is sent to their own address."""
        self.sent: list[tuple[LoneServer, Address, bytes]] = []

    def run(self, us: int, until: Callable[[], Any] | None = None) -> bool:
        """Let time pass; True as soon as `until` holds."""
        end = self.now + us
        while self.now < end:
            self.now += 10_000
            for source in self.servers:
                for target, data in source.turn(self.now):
                    self.sent.append((source, target, data))
                    self._carry(source, target, data)
            if until is not None and until():
                return True
        return False

    def _carry(self, source: LoneServer, target: Address, data: bytes) -> None:
        for other in self.servers:
            hears = target == EVERYBODY and other not in self.deaf
            if other is not source and (hears or target == other.address):
                other.engine.receive(data, source.address, self.now)
