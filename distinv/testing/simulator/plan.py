"""Everything that will go wrong in one simulated run, drawn from one seed."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

import attrs
from attrs import evolve, frozen

from distinv.errors import ConfigError
from distinv.testing.simulator.drawing import MS, draw_faults, draw_late, draw_pace
from distinv.testing.simulator.faults import Fault
from distinv.testing.simulator.hostile import HOSTILE
from distinv.wire.endpoint import PAYLOAD_BYTES_MIN
from distinv.wire.frame import DATAGRAM_BYTES_MAX

ELECTIONS = ("bully", "ring")
SERVERS_MAX = 7
EVENTS_FACTOR = 2
"""A run is cut short that has so many times more events than it was meant to have."""

LEFTOVERS = (
    "down",
    "flapping",
    "asleep",
    "dark",
    "cut",
    "deaf",
    "mute",
    "half",
    "lossy",
    "stalled",
)
"""What may stay wrong with a server for good; see `Simulation._leave_broken`."""


@frozen
class Plan:
    """A cluster, its clients, how the world treats them, and the faults. Times in microseconds."""

    servers: int
    clients: int
    election: str
    sealed: bool
    loss: float
    duplicate: float
    delay_us: int
    """The mean of an exponential delay on top of `latency_us`; it reorders datagrams."""
    latency_us: int
    reaction_us: int
    """A process takes its turn within this time of an arrival; more arrive meanwhile."""
    sync_us: int
    """A sync takes between half and three times as long."""
    born: bool
    """The cluster exists already: its voters have the first entry on their disks."""
    starts_us: int
    """Within this time all servers are started."""
    slow_disk: int
    """Which server's disk is a hundred times slower, -1 for none."""
    cancel: float
    """The share of calls whose caller gives up early."""
    skew_us: int
    """How far the servers' wall clocks differ from the right time at most."""
    rate_ppm: int
    """How much too fast or slow the clocks of servers and clients run at most."""
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
    """That part ends after so many events at the latest: for the few runs that have far more
    than `drawing.draw_pace` expects, such as those of an election that floods the others."""
    late: tuple[int, ...]
    """Servers that are not there at first: they come by a fault, or when all heals. A cluster that
    is yet to be born is born without them."""
    keep: int
    """How many of the last entries servers keep; who lacks more gets a snapshot."""
    evict_us: int
    """A voter that is silent for so long is replaced."""
    heal_all: bool
    """Everything heals. Else a bare quorum does, and the other faults are for good."""
    quorum: tuple[int, ...]
    """The servers in the order in which they are taken for that quorum."""
    leftovers: tuple[str, ...]
    """What stays wrong with each server that is not in it, of `LEFTOVERS`."""
    faults: tuple[Fault, ...]
    stream: int = 0
    """Another one gives the same plan other delays, losses and work: for shrinking."""

    def expect(self, number: int) -> int:
        """For how many others like it a blank server waits.

        Those that are there at first wait for exactly one another, so that there is one birth; who
        comes late waits for more than will ever come with it: it joins.
        """
        alone = self.born or not self.late or number in self.late
        return self.servers if alone else self.servers - len(self.late)

    def describe(self) -> list[str]:
        """Lines for people: the settings, then the faults with their numbers."""
        settings = [
            f"{name}={_text(value)}"
            for name, value in attrs.asdict(self, recurse=False).items()
            if name != "faults"
        ]
        faults = [
            f"{number:4} {fault.at_us / 1000:9.1f} ms  {fault}"
            for number, fault in enumerate(self.faults)
        ]
        return [" ".join(settings), *faults]

    def only(self, numbers: Iterable[int]) -> Plan:
        """With these of its faults, by their numbers in `describe`."""
        wanted = set(numbers)
        kept = tuple(fault for number, fault in enumerate(self.faults) if number in wanted)
        return evolve(self, faults=kept)

    def options_from(self, whole: Plan) -> list[str]:
        """What to add to `distinv simulate --seed N`, whose plan is `whole`, to run this one."""
        options = [
            f"--set {name}={getattr(self, name)}"
            for name in SETTINGS
            if getattr(self, name) != getattr(whole, name)
        ]
        if self.faults != whole.faults:
            kept = [number for number, fault in enumerate(whole.faults) if fault in self.faults]
            options.append(f"--faults {','.join(map(str, kept)) or 'none'}")
        return options

    def changed(self, settings: Iterable[str]) -> Plan:
        """With `name=value` settings changed. Raises ConfigError for one that does not fit."""
        changes: dict[str, Any] = {}
        for setting in settings:
            name, _, text = setting.partition("=")
            if name not in SETTINGS:
                raise ConfigError(
                    f"the plan has no setting {name!r}; choose from {', '.join(SETTINGS)}"
                )
            try:
                changes[name] = _value(name, text, getattr(self, name))
            except ValueError as problem:
                raise ConfigError(f"{setting!r}: {name} is {problem}") from None
        return evolve(self, **changes)


SETTINGS = tuple(
    field.name
    for field in attrs.fields(Plan)
    if field.name not in ("faults", "quorum", "leftovers", "late")
)
"""What `Plan.changed` can change."""


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


BOUNDS: dict[str, tuple[float, float]] = {
    "servers": (1, SERVERS_MAX),
    "clients": (1, 16),
    "loss": (0.0, 1.0),
    "duplicate": (0.0, 1.0),
    "delay_us": (0, 1_000 * MS),
    "latency_us": (1, 1_000 * MS),
    "reaction_us": (0, 1_000 * MS),
    "sync_us": (1, 1_000 * MS),
    "starts_us": (1, 60_000 * MS),
    "slow_disk": (-1, SERVERS_MAX - 1),
    "cancel": (0.0, 1.0),
    "skew_us": (0, 3_600_000 * MS),
    "rate_ppm": (0, 200_000),
    "payload_bytes": (PAYLOAD_BYTES_MIN, DATAGRAM_BYTES_MAX),
    "callers": (1, 100),
    "think_us": (1, 60_000 * MS),
    "duration_us": (1, 60_000 * MS),
    "events": (1, 200_000),
    "keep": (1, 100_000),
    "evict_us": (1, 600_000 * MS),
    "stream": (0, 1_000_000_000),
}
"""From the least to the greatest that `Plan.changed` takes, for every setting that is a number."""


def _value(name: str, text: str, like: object) -> object:
    """Raises ValueError with what the setting's value may be."""
    if name == "election":
        elections = (*ELECTIONS, *HOSTILE)
        if text not in elections:
            raise ValueError(f"one of {', '.join(elections)}")
        return text
    if isinstance(like, bool):
        if text not in ("True", "False"):
            raise ValueError("one of True, False")
        return text == "True"
    low, high = BOUNDS[name]
    kind = "number" if isinstance(like, float) else "whole number"
    try:
        value = float(text) if isinstance(like, float) else int(text)
    except ValueError:
        value = float("nan")  # which is in no range
    if not low <= value <= high:
        raise ValueError(f"a {kind} from {low} to {high}")
    return value


def draw_plan(seed: int, *, hostile: bool | None = None) -> Plan:
    """Draw one. `hostile` forces or forbids a hostile election; None leaves it to chance."""
    random = Random(f"plan {seed}")
    servers = random.choice((1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7))
    clients, callers = random.choice((1, 2, 3, 4)), random.choice((1, 1, 3, 10))
    if hostile is None:
        hostile = random.random() < 0.2
    duration_us, call_us, events = draw_pace(random, servers)
    born = random.random() < 0.6
    late = draw_late(random, servers, at_most=servers - 1)
    return Plan(
        servers=servers,
        clients=clients,
        election=random.choice(tuple(HOSTILE) if hostile else ELECTIONS),
        sealed=random.random() < 0.3,
        loss=random.choice((0.0, 0.0, 0.01, 0.05, 0.1, 0.2, 0.3)),
        duplicate=random.choice((0.0, 0.0, 0.01, 0.1)),
        delay_us=random.choice((20, 100, 500, 3_000)),
        latency_us=random.choice((50, 100, 300)),
        reaction_us=random.choice((60, 60, 600)),
        sync_us=random.choice((100, 300, 2_000)),
        born=born,
        starts_us=random.choice((1 * MS, 20 * MS, 400 * MS)),
        slow_disk=random.randrange(servers) if random.random() < 0.2 else -1,
        cancel=random.choice((0.0, 0.0, 0.02, 0.1)),
        skew_us=random.choice((0, 1_000 * MS, 30_000 * MS)),
        rate_ppm=random.choice((0, 0, 200, 50_000)),
        payload_bytes=random.choice((600, 1_200, 32_000)),
        callers=callers,
        think_us=2 * clients * callers * call_us,  # the mean is half of it
        tight=random.random() < 0.3,
        duration_us=duration_us,
        events=EVENTS_FACTOR * events,
        late=late,
        keep=random.choice((1_000, 1_000, 3, 10, 30)),
        evict_us=random.choice((600_000 * MS, 300 * MS, 900 * MS)),
        heal_all=random.random() < 0.4,
        quorum=tuple(random.sample(range(SERVERS_MAX), SERVERS_MAX)),
        leftovers=tuple(random.choice(LEFTOVERS) for _ in range(SERVERS_MAX)),
        faults=draw_faults(random, servers, clients, duration_us, late),
    )
