"""Faults drawn by chance: each run has some kinds and not others, each at a rate of its own."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from distinv.testing.simulator.faults import (
    LEADER,
    Arrive,
    Blank,
    Bridge,
    ClientCrash,
    Clog,
    Crash,
    Cut,
    Eclipse,
    Fault,
    Fill,
    HandOver,
    Jump,
    Order,
    Pause,
    PowerCut,
    Rot,
    Stall,
    Trap,
)

MS = 1_000


SERVER_EVENTS = 250
"""Events (datagrams and turns) that one server has in a second without any work."""
CALL_EVENTS, CALL_SERVER_EVENTS = 3, 4
"""Events of one call, and for each server more. All three were measured in runs without faults,
of 1 to 7 servers and 8 to 200 calls a second; they hold within a third."""


def draw_pace(random: Random, servers: int) -> tuple[int, int, int]:
    """How long things go wrong, in us, the mean time between two calls, in us, and events.

    A run has so many events to spend. An election takes 300 to 600 ms, so most runs last for
    several; a few are short and busy. Clients call as often as the rest of the events affords.
    """
    events = random.randrange(2_000, 5_000)
    low_us, high_us = random.choice(_LENGTHS_US)
    idle = SERVER_EVENTS * servers
    longest_us = max(800 * MS, events * 700_000 // idle)  # not all is for silence
    duration_us = min(random.randrange(low_us, high_us), longest_us)
    rest = events - idle * duration_us // 1_000_000
    calls = rest // (CALL_EVENTS + CALL_SERVER_EVENTS * servers)
    return duration_us, duration_us // max(1, calls), events


_LENGTHS_US = (
    (600 * MS, 1_200 * MS),
    (1_200 * MS, 2_200 * MS),
    (1_200 * MS, 2_200 * MS),
    (2_200 * MS, 3_500 * MS),
)
_KINDS_FIT_US = 2_000 * MS
"""The times between faults in `_Draw.kinds` are those of runs of this length or longer."""


def draw_late(random: Random, servers: int, at_most: int) -> tuple[int, ...]:
    """Servers that join the others while they run: most often none."""
    if not at_most or random.random() < 0.6:
        return ()
    return tuple(sorted(random.sample(range(servers), random.randint(1, at_most))))


def draw_faults(
    random: Random, servers: int, clients: int, duration_us: int, late: tuple[int, ...] = ()
) -> tuple[Fault, ...]:
    """In the order of their times, none in the last tenth of `duration_us`."""
    draw = _Draw(random, servers, clients, duration_us)
    faults: list[Fault] = [
        Arrive(random.randrange(duration_us * 8 // 10), f"server-{number}") for number in late
    ]
    for chance, low_us, high_us, one in draw.kinds():
        if random.random() >= chance:
            continue
        every_us = random.randrange(low_us, high_us) * min(duration_us, _KINDS_FIT_US)
        every_us //= _KINDS_FIT_US
        at_us = int(random.expovariate(1.0) * every_us)
        while at_us < duration_us * 9 // 10:
            faults.append(one(at_us))
            at_us += int(random.expovariate(1.0) * every_us) + 1
    return tuple(sorted(faults, key=lambda fault: fault.at_us))


_Kind = tuple[float, int, int, Callable[[int], Fault]]
"""How likely a run has it, the range of the mean time between two, and one that strikes then."""


class _Draw:
    """One fault of each kind, in the manner of this run: most are over before it heals."""

    def __init__(self, random: Random, servers: int, clients: int, duration_us: int) -> None:
        self._random = random
        self._half_us = duration_us // 2
        self._names = [f"server-{number}" for number in range(servers)]
        self._everybody = [*self._names, *(f"client-{number}" for number in range(clients))]
        self._clients = clients
        self._long_us = random.randrange(50 * MS, self._half_us)
        self._fast = random.random() < 0.5
        self._cut_us = random.randrange(200 * MS, self._half_us)
        self._one_way = random.choice((0.0, 0.3, 1.0))
        self._trapped = random.choice(
            (
                ("promise",),
                ("noop",),
                ("entry",),
                ("promise", "noop", "birth"),
                ("voters",),
                ("base",),
            )
        )

    def kinds(self) -> list[_Kind]:
        several = 0.2 if len(self._names) > 2 else 0.0
        return [
            (0.5, 400 * MS, 3_000 * MS, self._crash),
            (0.3, 400 * MS, 2_000 * MS, self._power_cut),
            (0.3, 100 * MS, 1_000 * MS, self._trap),
            (several, 500 * MS, 2_000 * MS, self._eclipse),
            (0.3, 500 * MS, 3_000 * MS, self._pause),
            (0.4, 300 * MS, 2_000 * MS, self._cut),
            (several, 500 * MS, 3_000 * MS, self._bridge),
            (0.2, 300 * MS, 2_000 * MS, self._clog),
            (0.2, 500 * MS, 2_000 * MS, HandOver),
            (0.2, 1_000 * MS, 4_000 * MS, self._stall),
            (0.1, 1_000 * MS, 4_000 * MS, self._fill),
            (several / 2, 500 * MS, 4_000 * MS, self._rot),
            (0.2, 500 * MS, 3_000 * MS, self._jump),
            (0.2, 300 * MS, 2_000 * MS, self._client_crash),
            (0.2, 300 * MS, 2_000 * MS, self._order),
            (several, 500 * MS, 3_000 * MS, self._blank),
        ]

    def _server(self, leader: float) -> str:
        return LEADER if self._random.random() < leader else self._random.choice(self._names)

    def _down_us(self) -> int:
        """A machine that reboots, or a process that is restarted at once."""
        random = self._random
        return random.randrange(1 * MS, 30 * MS) if self._fast else random.randrange(self._long_us)

    def _crash(self, at_us: int) -> Fault:
        return Crash(at_us, self._server(0.6), self._down_us())

    def _power_cut(self, at_us: int) -> Fault:
        random = self._random
        down = tuple(random.randrange(self._long_us) for _ in self._names)
        held = random.choice((0, 5 * MS, 20 * MS, 60 * MS))
        return PowerCut(at_us, down, held, random.choice((0, self._half_us, self._half_us)))

    def _trap(self, at_us: int) -> Fault:
        random = self._random
        how = random.choice(("mid-turn", "mid-sync", "after-sync"))
        return Trap(at_us, random.choice(self._trapped), how, random.randrange(1 * MS, 30 * MS))

    def _eclipse(self, at_us: int) -> Fault:
        random = self._random
        how = random.choice(("mid-sync", "after-sync"))
        down, dark = random.randrange(1 * MS, 10 * MS), random.randrange(400 * MS, 900 * MS)
        return Eclipse(at_us, "promise", how, down, dark)

    def _pause(self, at_us: int) -> Fault:
        random = self._random
        target = self._server(0.4) if random.random() < 0.8 else random.choice(self._everybody)
        return Pause(at_us, target, random.randrange(20 * MS, self._half_us))

    def _cut(self, at_us: int) -> Fault:
        random = self._random
        side = tuple(name for name in self._everybody if random.random() < 0.4)
        if random.random() < 0.3 or not side or len(side) == len(self._everybody):
            side = (LEADER,)
        one_way = random.random() < self._one_way
        return Cut(at_us, side, one_way, random.randrange(100 * MS, self._cut_us))

    def _bridge(self, at_us: int) -> Fault:
        random = self._random
        restart_us = random.choice((0, random.randrange(100 * MS, 500 * MS)))
        hub, for_us = (
            random.choice(self._names),
            random.randrange(300 * MS, max(301 * MS, 2 * self._cut_us)),
        )
        return Bridge(at_us, hub, for_us, restart_us)

    def _clog(self, at_us: int) -> Fault:
        random = self._random
        source, target = self._server(0.5), random.choice(self._everybody)
        return Clog(at_us, source, target, random.randrange(500 * MS))

    def _stall(self, at_us: int) -> Fault:
        return Stall(at_us, self._server(0.6), self._random.randrange(10 * MS, 2 * self._half_us))

    def _fill(self, at_us: int) -> Fault:
        return Fill(at_us, self._server(0.5), self._random.randrange(10 * MS, self._half_us))

    def _rot(self, at_us: int) -> Fault:
        return Rot(at_us, self._server(0.3), self._random.random())

    def _jump(self, at_us: int) -> Fault:
        return Jump(at_us, self._server(0.4), self._random.randrange(-30_000 * MS, 30_000 * MS))

    def _order(self, at_us: int) -> Fault:
        return Order(at_us, self._server(0.2), self._random.random() < 0.4)

    def _blank(self, at_us: int) -> Fault:
        return Blank(at_us, self._server(0.3), self._down_us())

    def _client_crash(self, at_us: int) -> Fault:
        random = self._random
        return ClientCrash(at_us, random.randrange(self._clients), random.randrange(300 * MS))
