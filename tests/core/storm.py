"""A scene in which everything goes wrong that may, drawn from one seed; then it must recover."""

from __future__ import annotations

from random import Random

from scene import MS, Scene, Server, command

from distinv.config import Limits
from distinv.core import events
from distinv.election.api import ElectionFactory
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.testing.simulator.hostile import HOSTILE

ELECTIONS: tuple[ElectionFactory, ...] = (Bully, Ring, *HOSTILE.values())
RECOVERY_MS = 20_000


class Storm:
    def __init__(
        self, seed: int, *, born: bool = True, count: int | None = None, expect: int | None = None
    ) -> None:
        self.random = random = Random(f"storm {seed}")
        self.may_split = expect == 0
        tight = Limits(append_window_entries=3, pull_bytes=60, batch_commands=2)
        self.scene = scene = Scene(
            count or random.choice((1, 3, 3, 3, 5)),
            learners=random.choice((0, 0, 1)) if born else 0,
            limits=random.choice((None, tight)),
            seed=seed,
            born=born,
            expect=expect,
            election=random.choice(ELECTIONS),
            latency_us=random.choice((50, 300, 3_000)),
            sync_us=random.choice((50, 500, 5_000)),
        )
        loss = random.choice((0.0, 0.05, 0.3))
        stragglers = random.choice((0.0, 0.01, 0.05))
        spread = random.choice((10, 500, 5_000))

        def jitter() -> int:
            if random.random() < stragglers:
                return random.randrange(2_000 * MS)
            return random.randrange(spread)

        scene.jitter = jitter
        scene.loss = lambda: random.random() < loss
        batch_us = random.choice((0, 100, 3_000))
        self.number = 0
        self.read = 0
        for server in scene.servers.values():
            server.batch_us = batch_us
            server.skew_us = random.choice((0, 0, 20_000 * MS))
        self._actions = [
            *[self._submit] * random.choice((5, 30)),
            *[self._ask] * 8,
            *[self._crash] * random.choice((0, 1, 3)),
            *[self._cut] * random.choice((0, 2)),
            *[self._stall] * random.choice((0, 1)),
            *[self._lag] * random.choice((0, 1)),
            *[self._transfer] * random.choice((0, 1)),
            *[self._break_link] * random.choice((0, 1, 2)),
        ]

    def run(self, ms: int = 4_000) -> None:
        scene, random = self.scene, self.random
        end = scene.now + ms * MS
        while scene.now < end:
            scene.run(random.randrange(1, random.choice((3, 30, 120))))
            random.choice(self._actions)()
        self._recover()

    # --- what goes wrong ----------------------------------------------------------------------

    def _somebody(self) -> int:
        return self.random.choice(list(self.scene.servers))

    def _submit(self) -> None:
        for server in self.scene.servers.values():
            if server.alive:
                self.number += 1
                server.submit(self.number)

    def _ask(self) -> None:
        server = self.scene[self._somebody()]
        if server.alive:
            self.read += 1
            server.read(self.read)

    def _crash(self) -> None:
        scene, leader = self.scene, self.scene.leader
        server = leader if leader and self.random.random() < 0.5 else scene[self._somebody()]
        if server.alive:
            server.crash(self.random.randrange(server.writes_under_way + 1))
            scene.after(self.random.randrange(1_500) * MS, self._start, server.id)

    def _start(self, id: int) -> None:
        if not self.scene[id].alive:
            self.scene[id].start()

    def _cut(self) -> None:
        random, scene = self.random, self.scene
        ways = [
            (one, other)
            for one in scene.servers
            for other in scene.servers
            if one != other and random.random() < 0.3
        ]
        scene.cut(*ways)
        scene.after(random.randrange(1_500) * MS, lambda: scene.cuts.difference_update(ways))

    def _stall(self) -> None:
        server = self.scene[self._somebody()]
        server.stalled = True
        self.scene.after(self.random.randrange(2_500) * MS, self._end_stall, server.id)

    def _end_stall(self, id: int) -> None:
        server = self.scene[id]
        server.stalled = False
        if server.alive and server.writes_under_way:
            server._start_sync()

    def _lag(self) -> None:
        server = self.scene[self._somebody()]
        server.late_us = self.random.choice((0, 60, 200, 1_000)) * MS

    def _transfer(self) -> None:
        leader = self.scene.leader
        if leader is not None:
            leader.turn(events.Transfer(None))

    def _break_link(self) -> None:
        one, other = self._somebody(), self._somebody()
        if one != other and self.scene[one].alive:
            self.scene.break_link(one, other)

    # --- and then -----------------------------------------------------------------------------

    def _recover(self) -> None:
        scene = self.scene
        scene.heal()
        scene.loss = lambda: False
        scene.jitter = lambda: 0
        for server in scene.servers.values():
            server.late_us = 0
            self._end_stall(server.id)
            self._start(server.id)
        if self.may_split:
            scene.run(5_000)
            return
        leader = scene.settle(RECOVERY_MS)
        self.number += 1
        leader.turn(events.Submit(command(self.number)))
        scene.settle(RECOVERY_MS)
        assert scene.numbers()[-1] == self.number
        numbers = scene.numbers()
        assert len(numbers) == len(set(numbers)), "a submission is in the log twice"
        for server in scene.servers.values():
            assert self._read_in_the_end(server), "a read is not answered after all has healed"

    def _read_in_the_end(self, server: Server) -> bool:
        """A read may fail when leadership is handed over just then, but not for ever."""
        for _ in range(10):
            self.read += 1
            server.read(self.read)
            if self.scene.run(1_000, lambda: self.read in server.ready):
                return True
            assert self.read in server.failed, "a read is neither answered nor refused"
        return False
