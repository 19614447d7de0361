"""Two clusters of one name in bad weather: cuts, losses, crashes, and a command now and then.

Whatever happens, nothing is set aside of a cluster that has a committed command, and none is
committed behind a cluster's last entry. When the weather is good again there is one cluster, or
two if clients have used both.
"""

from __future__ import annotations

from random import Random

import pytest
from lone_server import EVERYBODY, LoneServer, log_of

from distinv.core.events import Submit
from distinv.entry import EntryKind, NodeId
from distinv.server.dissolving import Dissolved
from distinv.storage.memory import MemoryStorage
from distinv.transport.api import Address
from distinv.wire.batch import OpenCommand

SECOND_US = 1_000_000
STEP_US = 20_000
STORM_US = 12 * SECOND_US
PATIENCE_US = 240 * SECOND_US
GROUPS = {77: (1, 2, 3), 88: (4, 5, 6)}


class Record:
    """What is known outside: commands that are committed, and clusters that have ended."""

    def __init__(self) -> None:
        self.used: set[int] = set()
        self.ended: set[int] = set()

    def on_applied(self, cluster_id: int, kind: int) -> None:
        if kind == EntryKind.COMMANDS:
            assert cluster_id not in self.ended, "a command behind the last entry"
            self.used.add(cluster_id)
        elif kind == EntryKind.DISSOLVED:
            assert cluster_id not in self.used, "a cluster with commands has ended"
            self.ended.add(cluster_id)

    def on_set_aside(self, cluster_id: int) -> None:
        assert cluster_id not in self.used, "commands were set aside"
        assert cluster_id in self.ended, "set aside without a last entry"


class Resident(LoneServer):
    """A server whose disk is slow now and then, and which crashes and comes back."""

    def __init__(self, number: int, cluster_id: int, record: Record, random: Random) -> None:
        self.record, self.random, self.alive = record, random, True
        self.side = 0
        self.kept: list[Dissolved] = []
        self._staged: list[tuple[int, int]] = []
        first, *_ = voters = GROUPS[cluster_id]
        super().__init__(number, log_of(cluster_id, first, touched=False, voters=len(voters)))

    def crash(self) -> None:
        self.alive = False
        self._staged.clear()
        self.storage.crash()

    def restart(self, now: int) -> None:
        if self.alive:
            self.crash()
        self.alive = True
        self.open(now, remembered=self.kept)

    def turn(self, now: int) -> list[tuple[Address, bytes]]:
        engine = self.engine
        if self._staged and self.random.random() < 0.7:
            ticket, stored = self._staged[-1]
            self._staged.clear()
            self.storage.make_durable(stored)
            engine.persisted(ticket, now)
        if engine.deadline() <= now:
            engine.on_deadline(now)
        while engine.apply_waiting:
            index = engine.machine.position.index + 1
            entry = engine.node.log.body(index)
            assert entry is not None
            engine.apply_more(now)
            self.record.on_applied(engine.cluster_id, entry.kind)
        turn = self._end_turn(now)
        if turn.write is not None:
            self._staged.append((turn.write.ticket, self.storage.stage(turn.write.records)))
        gone = engine.dissolved(now)
        if gone is not None:
            self._begin_anew(gone, now)
        return turn.datagrams

    def _begin_anew(self, gone: Dissolved, now: int) -> None:
        self.record.on_set_aside(gone.cluster_id)
        self.kept.append(gone)
        self.id = NodeId(self.id + 100)
        self._staged.clear()
        self.storage = MemoryStorage()
        self.open(now, remembered=self.kept, joins=gone.successor)


class Weather:
    def __init__(self, seed: int) -> None:
        self.random = Random(f"storm {seed}")
        self.now = 0
        self.loss = self.random.choice((0.0, 0.05, 0.2))
        self.record = Record()
        self.servers = [
            Resident(number, cluster_id, self.record, self.random)
            for cluster_id, numbers in GROUPS.items()
            for number in numbers
        ]
        self.separate()
        users = self.random.choice(((), (77,), (88,), (77, 88), (88,), (77,)))
        self.uses = [(self.random.randrange(STORM_US), each) for each in users]

    def separate(self) -> None:
        """As they were born: two groups."""
        for server in self.servers:
            server.side = int(server.id in GROUPS[88])

    def step(self) -> None:
        self.now += STEP_US
        for source in self.servers:
            if source.alive:
                for target, data in source.turn(self.now):
                    self._carry(source, target, data)

    def _carry(self, source: Resident, target: Address, data: bytes) -> None:
        for other in self.servers:
            reached = other.alive and other.side == source.side and other is not source
            if reached and target in (EVERYBODY, other.address) and not self._loses():
                other.engine.receive(data, source.address, self.now)

    def _loses(self) -> bool:
        return self.loss > 0 and self.random.random() < self.loss

    def trouble(self) -> None:
        """Something happens about once a second."""
        random = self.random
        for at, cluster_id in list(self.uses):
            if self.now >= at and self._use(cluster_id):
                self.uses.remove((at, cluster_id))
        for server in self.servers:
            if server.alive and server.engine.node.log.dissolved is not None:
                self._open_session(server)  # at the worst moment: it must not be taken
        if random.random() > STEP_US / SECOND_US:
            return
        server = random.choice(self.servers)
        match random.choice(("cut", "heal", "heal", "crash", "restart", "restart")):
            case "cut":
                for each in self.servers:
                    each.side = random.randrange(2)
            case "heal":
                for each in self.servers:
                    each.side = 0
            case "crash" if server.alive:
                server.crash()
            case _:
                server.restart(self.now)

    def _use(self, cluster_id: int) -> bool:
        """A client opens a session in that cluster, if anybody serves there."""
        for server in self.servers:
            engine = server.engine
            if server.alive and engine.cluster_id == cluster_id and engine.node.serving:
                self._open_session(server)
                return True
        return False

    def _open_session(self, server: Resident) -> None:
        server.engine._step(Submit(OpenCommand(self.now, "till")), self.now)

    def clear(self) -> None:
        """Everything works again. Who was restarted knows what it has, and no more than that."""
        self.loss, self.uses = 0.0, []
        for server in self.servers:
            server.side = 0
        for _ in range(2):
            for server in self.servers:
                server.restart(self.now)
            for _ in range(5 * SECOND_US // STEP_US):
                self.step()

    @property
    def clusters(self) -> set[int]:
        return {server.engine.cluster_id for server in self.servers}

    def is_calm(self) -> bool:
        """One cluster, or those that clients have used, and no server that belongs to none."""
        leading = {
            server.engine.cluster_id for server in self.servers if server.engine.node.serving
        }
        wanted = self.record.used or leading
        return self.clusters == leading == wanted and (
            len(wanted) == 1 or len(self.record.used) > 1
        )


@pytest.mark.parametrize("seed", range(8))
def test_in_the_end_there_is_one_cluster(seed: int) -> None:
    storm(seed)


def storm(seed: int) -> Weather:
    weather = Weather(seed)
    while weather.now < STORM_US:
        weather.step()
        weather.trouble()
    weather.clear()
    end = weather.now + PATIENCE_US
    while not weather.is_calm():
        assert weather.now < end, (seed, weather.clusters, weather.record.used)
        weather.step()
    return weather
