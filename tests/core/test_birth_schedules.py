"""Births in every order: thousands of schedules, each drawn from a seed.

One to seven blank servers start in any order, some late; their messages are lost, repeated and
overtaken; they crash in and after their writes, proposers more often than others; groups of them do
not hear one another at first. `Nursery` asserts on the way that who is born has a durable majority
of its own voters, that no two born clusters share an acceptor, and that nobody changes clusters.
"""

from __future__ import annotations

import itertools
from collections import Counter
from random import Random
from typing import Any

import pytest
from attrs import evolve
from nursery import MS, Nursery, Weather

import distinv.core.birth as birth_module
from distinv.core.birth import Answer, Birth, Exists, odd_voters
from distinv.core.quorum import VoterSets, is_quorum
from distinv.entry import NodeId, VoterSet
from distinv.storage.api import BirthRecord
from distinv.wire.messages import BirthAnswer

PATIENCE_US = 60_000 * MS
"""Virtual; what is not born or joined so long after all healed will never be."""
LONG_AFTER_US = 3_000 * MS


def draw(seed: int, expect: str, *, servers: int | None = None) -> Weather:
    """`expect`: all, none, some (less than there are), mixed, or too many."""
    random = Random(f"weather {seed} {expect}")
    count = servers or random.choice((1, 2, 3, 3, 3, 4, 5, 6, 7))
    one = {
        "all": count,
        "none": 0,
        "some": random.randint(1, count),
        "too many": count + random.randint(1, 2),
        "mixed": 0,
    }[expect]
    mixed = [random.choice((0, count, random.randint(1, count))) for _ in range(count)]
    gap_us = random.choice((1, 50, 500, 2_000)) * MS
    starts = [random.randrange(gap_us) for _ in range(count)]
    if random.random() < 0.3:
        starts[random.randrange(count)] += random.choice((1_000, 4_000, 12_000)) * MS
    storms_us = random.choice((300, 1_500, 4_000, 8_000)) * MS
    return Weather(
        expect=tuple(mixed) if expect == "mixed" else (one,) * count,
        starts_us=tuple(starts),
        loss=random.choice((0.0, 0.0, 0.1, 0.4)),
        duplicate=random.choice((0.0, 0.1, 0.3)),
        delay_us=random.choice((100, 1_000, 20 * MS, 150 * MS)),
        sync_us=random.choice((100, 2_000, 50 * MS)),
        unheard_us=draw_unheard(random, count, storms_us),
        crash=random.choice((0.0, 0.0, 0.1, 0.4)),
        proposer_dies=random.choice((0.0, 0.3, 0.9)),
        storms_us=storms_us,
    )


def draw_rivals(seed: int) -> Weather:
    """All start at once and none expects anybody; each hears about half of the others when the
    time to propose comes, and all of them right after it: proposals of overlapping sets meet."""
    random = Random(f"rivals {seed}")
    weather = draw(seed, "none", servers=random.choice((3, 4, 5, 5, 6, 7)))
    servers = range(1, len(weather.expect) + 1)
    unheard = {
        (NodeId(source), NodeId(target)): random.randrange(300, 700) * MS
        for source, target in itertools.permutations(servers, 2)
        if random.random() < 0.5
    }
    return evolve(
        weather,
        starts_us=tuple([random.randrange(20 * MS) for _ in servers]),
        delay_us=random.choice((1, 20, 60)) * MS,
        unheard_us=unheard,
        loss=random.choice((0.0, 0.1, 0.3)),
        storms_us=2_000 * MS,
    )


def draw_unheard(random: Random, count: int, storms_us: int) -> dict[tuple[NodeId, NodeId], int]:
    """Nothing, or groups that do not hear one another at first, or some who do not hear some."""
    kind = random.choice(("nothing", "groups", "some", "some"))
    group_of = [random.randrange(3) for _ in range(count)]
    until_us = random.randrange(storms_us)
    unheard = {}
    for source, target in itertools.permutations(range(count), 2):
        if kind == "groups" and group_of[source] != group_of[target]:
            unheard[NodeId(source + 1), NodeId(target + 1)] = until_us
        elif kind == "some" and random.random() < 0.5:
            unheard[NodeId(source + 1), NodeId(target + 1)] = random.randrange(storms_us)
    return unheard


def weathered(seed: int, weather: Weather) -> Nursery:
    """Everything went wrong for its time, then healed; everybody runs."""
    nursery = Nursery(seed, weather)
    nursery.run_until(weather.storms_us)
    nursery.heal()
    return nursery


def settled(nursery: Nursery) -> Nursery:
    """Everybody belongs somewhere, and does so a while later."""
    assert nursery.run_until(nursery.now + PATIENCE_US, lambda: not nursery.strays), nursery.strays
    nursery.run_until(nursery.now + LONG_AFTER_US)
    nursery.check()
    return nursery


@pytest.mark.parametrize("block", range(8))
def test_servers_that_expect_all_of_them_form_one_cluster(block: int) -> None:
    for seed in range(block * 150, block * 150 + 150):
        nursery = settled(weathered(seed, draw(seed, "all")))
        assert len(nursery.born) == 1, f"seed {seed}"
        (cluster,) = nursery.born.values()
        assert len(cluster.ids) == odd_voters(len(nursery.servers), 5), f"seed {seed}"


@pytest.mark.parametrize("expect", ["none", "some"])
def test_servers_that_expect_less_all_belong_somewhere(expect: str) -> None:
    """Those that do not hear one another may form clusters of their own; each is whole."""
    clusters: Counter[int] = Counter()
    for seed in range(400):
        nursery = settled(weathered(seed, draw(seed, expect)))
        clusters[len(nursery.born)] += 1
    assert clusters[1] > 200, clusters
    assert sum(count for born, count in clusters.items() if born > 1) > 5, clusters


@pytest.mark.parametrize("block", range(4))
def test_proposals_that_meet_come_to_an_end(block: int) -> None:
    """Each server accepts one of them; whichever cannot win is dropped, and then everybody is born
    or joins."""
    for seed in range(block * 150, block * 150 + 150):
        settled(weathered(seed, draw_rivals(seed)))


def test_servers_that_expect_more_than_there_are_wait() -> None:
    for seed in range(150):
        nursery = weathered(seed, draw(seed, "too many"))
        nursery.run_until(nursery.now + LONG_AFTER_US)
        assert not nursery.born, f"seed {seed}"


def test_servers_that_expect_different_numbers_never_share_two_clusters() -> None:
    """Some may wait for ever: they are told to. Those that are born are born well."""
    born = 0
    for seed in range(300):
        nursery = weathered(seed, draw(seed, "mixed"))
        nursery.run_until(nursery.now + LONG_AFTER_US)
        nursery.check()
        born += bool(nursery.born)
    assert born > 100


# --- would they notice? ---------------------------------------------------------------------------


def test_these_schedules_hold_what_they_promise() -> None:
    """Rivals, dead proposers and late servers are in them, and births that took a second try.

    Who expects all of them has no rival: only the lowest of all proposes.
    """
    rivals = fallen = late = again = 0
    for seed in range(200):
        nursery = settled(weathered(seed, draw(seed, "none")))
        fallen += nursery.fallen_proposers > 0
        late += max(nursery.weather.starts_us) > nursery.weather.storms_us
        nursery = settled(weathered(seed, draw_rivals(seed)))
        rivals += len(set(nursery.proposals)) > 1
        again += len(nursery.accepted) > len(nursery.born)
    assert min(rivals, fallen, late, again) > 30, (rivals, fallen, late, again)


def two_acceptances(birth: Birth, source: NodeId, proposal: VoterSet, now: int) -> Any:
    """Accept every proposal that one is shown."""
    answer = BirthAnswer(proposal.cluster_id, True, None)
    return [*birth._accept(proposal, now), Answer(source, answer)]


def forgets_refusals(birth: Birth) -> BirthRecord:
    """What was refused may be accepted after a restart."""
    return BirthRecord(birth.accepted, ())


def gives_up_early(sets: VoterSets, denied: list[NodeId]) -> bool:
    """One refusal, and the acceptance is dropped."""
    return not denied


def counts_at_once(birth: Birth) -> list[Any]:
    """The own acceptance counts before it is durable."""
    accepted = birth.accepted
    enough = accepted and is_quorum([accepted.ids], [*birth._agreed, birth._self_id])
    return [Exists(accepted)] if accepted and enough else []


BROKEN: dict[str, tuple[object, str, object]] = {
    "two acceptances": (Birth, "on_offer", two_acceptances),
    "refusals forgotten": (Birth, "record", forgets_refusals),
    "given up early": (birth_module, "can_win", gives_up_early),
    "counted before it is durable": (Birth, "_maybe_exists", counts_at_once),
}


@pytest.mark.parametrize("bug", BROKEN)
def test_a_broken_birth_is_noticed(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, replacement = BROKEN[bug]
    monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError):
        run_rivals(range(600))


def run_rivals(seeds: range) -> None:
    for seed in seeds:
        settled(weathered(seed, evolve(draw_rivals(seed), crash=0.4)))
