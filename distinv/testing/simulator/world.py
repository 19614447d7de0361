"""A small world in virtual time: an event heap, a bad network, and processes that die.

Servers run the real `Engine` (core, links, sealing, encoding, store in memory), clients the
real `ClientSession`. Everything random comes from one seed, nothing depends on the process, so
a seed is a run, bit for bit.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from heapq import heappop, heappush
from math import log
from random import Random
from typing import Any

from attrs import frozen

from distinv.config import Config, Timing
from distinv.entry import NodeId
from distinv.testing.simulator.checkers import History
from distinv.testing.simulator.plan import Plan
from distinv.transport.api import Address
from distinv.wire.seal import KeySeal, PlainSeal, Seal

BROADCAST: Address = ("255.255.255.255", 4746)
EPOCH_US = 1_700_000_000_000_000
"""What a right wall clock says when virtual time begins."""
FOREVER_US = 1 << 62

_PPM = 1_000_000


@frozen
class Clock:
    """A host's own time, in microseconds: it began at another moment, and runs too fast or slow."""

    base_us: int
    rate_ppm: int

    def read(self, world_now: int) -> int:
        return self.base_us + world_now + world_now * self.rate_ppm // _PPM

    def when(self, local: int) -> int:
        """When, in the world's time, this clock shows `local` (at the latest)."""
        return (local - self.base_us) * _PPM // (_PPM + self.rate_ppm) + 1


class Process(ABC):
    """Something with an address that takes turns."""

    def __init__(self, world: World, name: str, address: Address) -> None:
        self.world = world
        self.name = name
        self.name_bytes = name.encode()
        self.address = address
        self.random = Random(f"{name} {world.seed} {world.plan.stream}")
        rate = world.plan.rate_ppm
        self.clock = Clock(self.random.randrange(1 << 40), self.random.randint(-rate, rate))
        self.alive = False
        self.paused_until = 0
        self.inbox: list[tuple[bytes, Address]] = []
        self._turn_at = FOREVER_US
        """When it wants its next turn."""
        self._called_at = FOREVER_US
        """When the world will look at that next; not later."""
        self._called_then = FOREVER_US
        """And after that, because it was called for that time before an earlier one came up."""

    @property
    def host(self) -> str:
        return self.address[0]

    def deliver(self, data: bytes, source: Address) -> None:
        if self.alive:
            self.inbox.append((data, source))
            reaction_us = self.world.plan.reaction_us
            self.wake(self.world.now + 5 + int(self.random.random() * reaction_us))

    def wake(self, at: int) -> None:
        """Take a turn at `at`, in the world's time, unless one comes earlier."""
        if at < self.world.now:
            at = self.world.now
        if at < self.paused_until:
            at = self.paused_until
        if at < self._turn_at:
            self._turn_at = at
            if at < self._called_at:
                if self._called_at < self._called_then:
                    self._called_then = self._called_at
                self._called_at = at
                self.world.at(at, self._maybe_turn, at)

    def pause(self, until: int) -> None:
        self.paused_until = until

    def resume(self) -> None:
        self.paused_until = 0
        if self.alive:
            self.wake(self.world.now)

    def _maybe_turn(self, at: int) -> None:
        if at != self._called_at:
            return  # two calls came between
        self._called_at, self._called_then = self._called_then, FOREVER_US
        due = max(self._turn_at, self.paused_until)
        self._turn_at = FOREVER_US
        if not self.alive:
            return
        if due > at:
            self.wake(due)
        else:
            self.world.turns += 1
            self.turn()

    @abstractmethod
    def turn(self) -> None:
        """Take what has arrived, and do what is due."""

    def stop(self) -> None:
        self.alive = False
        self.inbox.clear()
        self._turn_at = FOREVER_US


class World:
    def __init__(self, seed: int, plan: Plan, config: Config, *, trace: bool) -> None:
        self.seed = seed
        self.plan = plan
        self.config = config
        self.now = 0
        self.random = Random(f"world {seed} {plan.stream}")
        self.history = History()
        self.turns = 0
        self.arrivals = 0
        self.healed = False
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._processes: dict[Address, Process] = {}
        self._blocked: dict[tuple[str, str], int] = {}
        self._clogged: dict[tuple[str, str], int] = {}
        self.lossy: dict[tuple[str, str], float] = {}
        """Loss from host to host that stays when the rest of the network has healed."""
        self._network = Random(f"network {seed} {plan.stream}")
        self._digest = hashlib.blake2b(digest_size=8)
        self.lines: list[str] | None = [] if trace else None
        key = self.random.randbytes(32)
        self.seal: Callable[[], Seal] = (lambda: KeySeal(key)) if plan.sealed else PlainSeal

    @property
    def timing(self) -> Timing:
        return self.config.timing

    @property
    def events(self) -> int:
        """Datagrams that arrived, and turns taken."""
        return self.arrivals + self.turns

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def note(self, who: str, what: str, *, text: bool = True) -> None:
        """One event of the run: it goes into the digest, and (as text) into the trace."""
        self._digest.update(f"{self.now} {who} {what}\n".encode())
        if text:
            self.tell(who, what)

    def tell(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self.lines is not None:
            self.lines.append(f"{self.now / 1000:10.3f} ms  {who:<10} {what}")

    # --- time ---------------------------------------------------------------------------------

    def at(self, time: int, call: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heappush(self._heap, (time, self._count, call, arguments))

    def after(self, delay: int, call: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, call, *arguments)

    def run_until(self, time: int, done: Callable[[], bool]) -> bool:
        """Run events up to `time`, or until `done` after some turn; True when done."""
        heap, turns = self._heap, self.turns
        while heap and heap[0][0] <= time:
            at, _, call, arguments = heappop(heap)
            if at > self.now:
                self.now = at
            call(*arguments)
            if self.turns != turns:
                turns = self.turns
                if done():
                    return True
        self.now = max(self.now, time)
        return done()

    # --- network ------------------------------------------------------------------------------

    def add(self, process: Process) -> None:
        self._processes[process.address] = process

    def block(self, source: str, target: str, until: int) -> None:
        """Nothing passes from host to host until then."""
        pair = (source, target)
        self._blocked[pair] = max(self._blocked.get(pair, 0), until)

    def unblock(self, source: str, target: str) -> None:
        self._blocked.pop((source, target), None)

    def clog(self, source: str, target: str, until: int) -> None:
        """What is sent from host to host arrives after that, in any order."""
        self._clogged[source, target] = until

    def mend(self) -> None:
        """No link is cut or clogged any more."""
        self._blocked.clear()
        self._clogged.clear()

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
        plan, random = self.plan, self._network
        pair = (source[0], target.address[0])
        if self._blocked and self._blocked.get(pair, 0) > self.now:
            return
        loss = 0.0 if self.healed else plan.loss
        if self.lossy:
            loss = self.lossy.get(pair, loss)
        if loss and random.random() < loss:
            return
        copies = 1
        if not self.healed and plan.duplicate and random.random() < plan.duplicate:
            copies = 2
        held = self._clogged.get(pair, 0) - self.now if self._clogged else 0
        for _ in range(copies):
            # As random.expovariate(1.0): most are fast, a few are overtaken by many.
            delay = plan.latency_us - int(log(1.0 - random.random()) * plan.delay_us)
            if held > 0:
                delay += held + random.randrange(3_000)
            self.at(self.now + delay, self._arrive, source, target, data)

    def _arrive(self, source: Address, target: Process, data: bytes) -> None:
        if self._blocked and self._blocked.get((source[0], target.address[0]), 0) > self.now:
            return
        self.arrivals += 1
        self._digest.update(b"%d %b %b" % (self.now, target.name_bytes, data[-8:]))
        target.deliver(data, source)

    def nobody_at(self, address: Address) -> bool:
        """What the kernel of that host would say to a connected socket."""
        process = self._processes.get(address)
        return process is not None and not process.alive

    def random_id(self) -> NodeId:
        return NodeId(self.random.randrange(1, 1 << 63))
