"""What goes wrong, and when: drawn from one seed, as two endless schedules that run side by side.

The leader is killed again and again; beside it, one after another, come all other faults. A seed
gives the same schedule every time, but never the same run: who leads when, and what is under way
then, is up to the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random

from attrs import frozen

_MS = 1_000
_SECOND = 1_000_000


class Kind(StrEnum):
    """What can go wrong."""

    LEADER_KILL = "leader_kill"
    """SIGKILL to the leader, which is started again."""
    KILL = "kill"
    """SIGKILL to any server."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT later."""
    PARTITION = "partition"
    """The servers are in two sides that do not hear each other."""
    ISOLATION = "isolation"
    """One server is cut from everybody, clients included."""
    ONE_WAY = "one_way"
    """One server is not heard, or hears nothing, or does not reach one other."""
    CLIENTS = "clients"
    """The clients are cut from some servers."""
    LOSS = "loss"
    """All servers lose, repeat and delay what they send."""
    DISK_FULL = "disk_full"
    """The disk of one server fills up."""
    RESTART = "restart"
    """All servers are killed at once, and started again."""
    ROLLING = "rolling"
    """Every server is stopped in good order and started again, one after the other."""
    LEAVE = "leave"
    """A server gives its vote up, stops, and joins again with nothing."""
    DISK_LOST = "disk_lost"
    """A server is killed, and everything that it has written is gone; it joins as a new one."""


ALL = tuple(Kind)
_USUAL = (
    *(Kind.PARTITION, Kind.PAUSE, Kind.ISOLATION, Kind.ONE_WAY),
    *(Kind.PARTITION, Kind.PAUSE, Kind.CLIENTS),
)
"""Dealt out like cards; after each hand two of the rare ones follow."""
_RARE = (
    *(Kind.DISK_LOST, Kind.LEAVE, Kind.ROLLING),
    *(Kind.DISK_FULL, Kind.RESTART, Kind.KILL, Kind.LOSS),
)
_RARE_PER_HAND = 2
_ENDS_BY_ITSELF = (Kind.DISK_LOST, Kind.LEAVE, Kind.ROLLING, Kind.DISK_FULL, Kind.RESTART)
"""These last as long as it takes."""
WAYS = ("mute", "deaf", "pair")
"""Of a one-way cut: it is not heard, it hears nothing, or it does not reach one other server."""


@frozen
class Fault:
    """One fault. Which server it hits is decided when its time has come."""

    kind: Kind
    wait_us: int
    """From the end of the one before."""
    lasts_us: int
    at_leader: bool
    """Whoever leads then is its victim; otherwise `order` decides."""
    order: tuple[int, ...]
    """All servers, shuffled: the first ones are the victims, or one side."""
    side: int
    """How many servers are on the smaller side of a partition, or cut from the clients."""
    way: str
    loss: float
    """With as much delay, and a tenth as many duplicates."""


def leader_kills(seed: int, servers: int, *, hurry: bool = False) -> Iterator[Fault]:
    """When the leader dies. In a `hurry` as soon as the one before has a successor."""
    random = Random(f"{seed} leader kills")
    while True:
        wait_us = 0 if hurry else random.randrange(300 * _MS, 1_500 * _MS)
        lasts_us = random.randrange(50 * _MS) if hurry else random.randrange(1_000 * _MS)
        yield _draw(random, Kind.LEADER_KILL, servers, wait_us, lasts_us, at_leader=True)


def troubles(seed: int, servers: int, kinds: Sequence[Kind]) -> Iterator[Fault]:
    """Everything else, one after another; ends at once when `kinds` names none of it."""
    random = Random(f"{seed} troubles")
    usual = [kind for kind in _USUAL if kind in kinds]
    chosen = [kind for kind in _RARE if kind in kinds]
    rare = _deal(random, chosen)
    while usual or chosen:
        hand = random.sample(usual, len(usual))
        hand += [next(rare) for _ in range(min(_RARE_PER_HAND, len(chosen)))]
        for kind in hand:
            wait_us = random.randrange(200 * _MS, 1_000 * _MS)
            lasts_us = _lasts(random, kind)
            at_leader = random.random() < 0.5
            yield _draw(random, kind, servers, wait_us, lasts_us, at_leader=at_leader)


def _deal(random: Random, cards: Sequence[Kind]) -> Iterator[Kind]:
    while cards:
        yield from random.sample(cards, len(cards))


def _lasts(random: Random, kind: Kind) -> int:
    if kind in _ENDS_BY_ITSELF:
        return 0
    if kind is Kind.PAUSE and random.random() < 0.4:
        return random.randrange(50 * _MS, 250 * _MS)  # too short to be suspected
    return random.randrange(500 * _MS, 2_000 * _MS)


def _draw(
    random: Random, kind: Kind, servers: int, wait_us: int, lasts_us: int, *, at_leader: bool
) -> Fault:
    return Fault(
        kind=kind,
        wait_us=wait_us,
        lasts_us=lasts_us,
        at_leader=at_leader,
        order=tuple(random.sample(range(servers), servers)),
        side=random.randint(1, max(1, servers // 2)),
        way=random.choice(WAYS),
        loss=random.choice((0.05, 0.1, 0.2)),
    )
