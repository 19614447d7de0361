"""A small world in virtual time: an event heap, a bad network, and processes that die.

Servers run the real `Engine` (core, links, sealing, encoding, store in memory), clients the
real `ClientSession`. Everything random comes from one seed, nothing depends on the process, so
a seed is a run, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

from distinv.config import Config, Timing
from distinv.entry import NodeId
from distinv.testing.checkers import History
from distinv.testing.plan import FaultPlan
from distinv.transport.api import Address
from distinv.wire.seal import KeySeal, PlainSeal, Seal

BROADCAST: Address = ("255.255.255.255", 4746)
EPOCH_US = 1_700_000_000_000_000
"""What the wall clock says when virtual time begins."""


class Process:
    """Something with an address that takes turns."""

    def __init__(self, world: World, name: str, address: Address) -> None:
        self.world = world
        self.name = name
        self.address = address
        self.alive = False
        self.paused_until = 0
        self.inbox: list[tuple[bytes, Address]] = []
        self._turn_at: int | None = None

    def deliver(self, data: bytes, source: Address) -> None:
        if self.alive:
            self.inbox.append((data, source))
            self.wake(self.world.now + self.world.random.randrange(5, 60))

    def wake(self, at: int) -> None:
        """Take a turn at `at`, unless one comes earlier."""
        at = max(at, self.world.now, self.paused_until)
        if self._turn_at is None or at < self._turn_at:
            self._turn_at = at
            self.world.at(at, self._maybe_turn, at)

    def _maybe_turn(self, at: int) -> None:
        if self._turn_at != at or not self.alive:
            return
        self._turn_at = None
        if self.world.now < self.paused_until:
            self.wake(self.paused_until)
            return
        self.turn()

    def turn(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        self.alive = False
        self.inbox.clear()
        self._turn_at = None


class World:
    def __init__(self, seed: int, plan: FaultPlan, config: Config, *, trace: bool) -> None:
        self.seed = seed
        self.plan = plan
        self.config = config
        self.now = 0
        self.random = Random(f"world {seed}")
        self.history = History()
        self.events = 0
        self.healed = False
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._processes: dict[Address, Process] = {}
        self._blocked: dict[tuple[str, str], int] = {}
        self._digest = hashlib.blake2b(digest_size=8)
        self.lines: list[str] | None = [] if trace else None
        key = self.random.randbytes(32)
        self.seal: Callable[[], Seal] = (lambda: KeySeal(key)) if plan.sealed else PlainSeal

    @property
    def timing(self) -> Timing:
        return self.config.timing

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def note(self, who: str, what: str, *, text: bool = True) -> None:
        """One event of the run: it goes into the digest, and (as text) into the trace."""
        self._digest.update(f"{self.now} {who} {what}\n".encode())
        if text and self.lines is not None:
            self.lines.append(f"{self.now / 1000:10.3f} ms  {who:<9} {what}")

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, call, arguments))

    def after(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, call, *arguments)

    def run_until(self, time: int, done: Callable[[], bool] | None = None) -> bool:
        """Run events up to `time`, or until `done`; True when done."""
        while self._heap and self._heap[0][0] <= time:
            at, _, call, arguments = heappop(self._heap)
            self.now = max(self.now, at)
            self.events += 1
            call(*arguments)
            if done is not None and done():
                return True
        self.now = max(self.now, time)
        return done is not None and done()

    # --- network ------------------------------------------------------------------------------

    def add(self, process: Process) -> None:
        self._processes[process.address] = process

    def block(self, source: str, target: str, until: int) -> None:
        """Nothing passes from host to host until then."""
        pair = (source, target)
        self._blocked[pair] = max(self._blocked.get(pair, 0), until)

    def unblock_all(self) -> None:
        self._blocked.clear()

    def send(self, source: Address, target: Address, data: bytes) -> None:
        if target == BROADCAST:
            for address, process in list(self._processes.items()):
                if address != source and address[0].startswith("10.0.0."):
                    self._send_one(source, process, data)
            return
        process_there = self._processes.get(target)
        if process_there is not None:
            self._send_one(source, process_there, data)

    def _send_one(self, source: Address, target: Process, data: bytes) -> None:
        plan, random = self.plan, self.random
        until = self._blocked.get((source[0], target.address[0]), 0)
        if until > self.now:
            return
        if not self.healed and plan.loss and random.random() < plan.loss:
            return
        copies = 1
        if not self.healed and plan.duplicate and random.random() < plan.duplicate:
            copies = 2
        for _ in range(copies):
            delay = plan.latency_us + int(random.expovariate(1.0) * plan.delay_us)
            self.after(delay, self._arrive, source, target, data)

    def _arrive(self, source: Address, target: Process, data: bytes) -> None:
        if self._blocked.get((source[0], target.address[0]), 0) > self.now:
            return
        self.note(target.name, f"< {source[0]} {len(data)} {data[-8:].hex()}", text=False)
        target.deliver(data, source)

    def nobody_at(self, address: Address) -> bool:
        """What the kernel of that host would say to a connected socket."""
        process = self._processes.get(address)
        return process is not None and not process.alive

    def random_id(self) -> NodeId:
        return NodeId(self.random.randrange(1, 1 << 63))
