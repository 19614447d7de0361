"""Everything that will go wrong in one simulated run, drawn from one seed."""

from __future__ import annotations

from random import Random

from attrs import asdict, frozen

from distinv.testing.hostile import HOSTILE

ELECTIONS = ("bully", "ring")


@frozen
class FaultPlan:
    """A cluster, its clients, and how the world treats them. Times in microseconds."""

    servers: int
    clients: int
    election: str
    sealed: bool
    loss: float
    duplicate: float
    delay_us: int
    """The mean of an exponential delay on top of `latency_us`; it reorders datagrams."""
    latency_us: int
    sync_us: int
    """A sync takes between half and three times as long."""
    slow_disk: int
    """Which server's disk is a hundred times slower, -1 for none."""
    crash_every_us: int
    """Mean time between crashes of a server, 0 for never."""
    power_cut_every_us: int
    """Mean time between crashes of all servers at once, 0 for never."""
    down_us: int
    pause_every_us: int
    pause_us: int
    partition_every_us: int
    partition_us: int
    one_way: float
    """The share of partitions that cut one direction only."""
    client_crash: float
    cancel: float
    """The share of calls whose caller gives up early."""
    transfer_every_us: int
    skew_us: int
    """How far the servers' wall clocks differ at most."""
    payload_bytes: int
    callers: int
    """Calls that one client has under way."""
    think_us: int
    """How long a caller waits before its next call, at most."""
    tight: bool
    """Limits so small that chunks, evictions and reads from storage happen in a short run."""
    duration_us: int
    """Of the part in which things go wrong; healing and the demand for progress follow."""
    events: int
    """That part ends after so many events at the latest."""

    def describe(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items())


def _sometimes(random: Random, chance: float, low: int, high: int) -> int:
    return random.randrange(low, high) if random.random() < chance else 0


def draw_plan(random: Random, *, hostile: bool | None = None) -> FaultPlan:
    """Draw one. `hostile` forces or forbids a hostile election; None leaves it to chance."""
    servers = random.choice((1, 2, 3, 3, 3, 3, 4, 5, 5))
    if hostile is None:
        hostile = random.random() < 0.2
    election = random.choice(tuple(HOSTILE) if hostile else ELECTIONS)
    ms = 1_000
    return FaultPlan(
        servers=servers,
        clients=random.choice((1, 2, 3, 4)),
        election=election,
        sealed=random.random() < 0.3,
        loss=random.choice((0.0, 0.0, 0.01, 0.05, 0.1, 0.2, 0.3)),
        duplicate=random.choice((0.0, 0.0, 0.01, 0.1)),
        delay_us=random.choice((20, 100, 500, 3_000)),
        latency_us=random.choice((50, 100, 300)),
        sync_us=random.choice((100, 300, 2_000)),
        slow_disk=random.randrange(servers) if random.random() < 0.2 else -1,
        crash_every_us=_sometimes(random, 0.7, 400 * ms, 3_000 * ms),
        power_cut_every_us=_sometimes(random, 0.2, 500 * ms, 3_000 * ms),
        down_us=random.randrange(50 * ms, 1_500 * ms),
        pause_every_us=_sometimes(random, 0.3, 500 * ms, 3_000 * ms),
        pause_us=random.randrange(50 * ms, 1_500 * ms),
        partition_every_us=_sometimes(random, 0.5, 500 * ms, 2_000 * ms),
        partition_us=random.randrange(100 * ms, 1_500 * ms),
        one_way=random.choice((0.0, 0.3, 1.0)),
        client_crash=random.choice((0.0, 0.0, 0.01)),
        cancel=random.choice((0.0, 0.0, 0.02, 0.1)),
        transfer_every_us=_sometimes(random, 0.2, 500 * ms, 2_000 * ms),
        skew_us=random.choice((0, 1_000 * ms, 30_000 * ms)),
        payload_bytes=random.choice((600, 1_200, 32_000)),
        callers=random.choice((1, 1, 3, 10)),
        think_us=random.choice((1 * ms, 30 * ms, 100 * ms, 300 * ms)),
        tight=random.random() < 0.3,
        duration_us=random.randrange(2_000 * ms, 6_000 * ms),
        events=random.randrange(3_000, 8_000),
    )
