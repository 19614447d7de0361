"""The built-in elections pass their suite, and for every property there is one that does not."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random, SystemRandom
from time import perf_counter_ns
from typing import Any

import pytest

from distinv.config import Timing
from distinv.election.api import (
    Election,
    ElectionAction,
    ElectionContext,
    ElectionFactory,
    Nominate,
    SendElection,
)
from distinv.election.bully import Bully
from distinv.election.ring import Ring
from distinv.entry import Ballot, NodeId
from distinv.testing import ElectionSuite
from distinv.testing.simulator.planted import CANARY, PLANTED

TestBully = ElectionSuite.of(Bully)
TestRing = ElectionSuite.of(Ring)

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "lowest_load_election"

Actions = Iterable[ElectionAction]


class Wrapped:
    """A good election, to be spoilt."""

    def __init__(self, context: ElectionContext) -> None:
        self.context = context
        self.inner: Election = Bully(context)
        self.voters: tuple[NodeId, ...] = ()

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return self.inner.on_suspect(leader, now)

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return self.inner.on_message(source, body, now)

    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Actions:
        return self.inner.on_leader(leader, ballot, now)

    def on_members(self, voters: Sequence[NodeId], now: int) -> Actions:
        self.voters = tuple(voters)
        return self.inner.on_members(voters, now)

    def on_deadline(self, now: int) -> Actions:
        return self.inner.on_deadline(now)

    def deadline(self) -> int | None:
        return self.inner.deadline()

    def to_all(self, body: bytes) -> list[ElectionAction]:
        return [SendElection(node, body) for node in self.voters if node != self.context.self_id]


TICKETS = itertools.count()


class Unsteady(Wrapped):
    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return [*self.inner.on_suspect(leader, now), *self.to_all(b"%d" % next(TICKETS))]


def looking(at_the_world: Callable[[], object]) -> ElectionFactory:
    class Looking(Wrapped):
        def on_deadline(self, now: int) -> Actions:
            at_the_world()
            return self.inner.on_deadline(now)

    return Looking


class Sociable(Wrapped):
    """Waits for somebody else's word."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return self.inner.on_suspect(leader, now) if len(self.voters) > 1 else ()


class Selfish(Wrapped):
    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return [Nominate(self.context.self_id)]


class Impatient(Wrapped):
    """Asks once; when an answer is lost, that is that."""

    def deadline(self) -> int | None:
        return None


class Silent(Impatient):
    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return ()


class Stubborn(Wrapped):
    """The highest id it shall be, dead or alive."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return [Nominate(max(node for node in self.voters if node != leader))]


class Trusting(Wrapped):
    """Who has answered will see to it: no need to look again."""

    def __init__(self, context: ElectionContext) -> None:
        super().__init__(context)
        self.answered = False

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        self.answered = self.answered or source > self.context.self_id
        return self.inner.on_message(source, body, now)

    def on_deadline(self, now: int) -> Actions:
        actions = list(self.inner.on_deadline(now))
        return () if self.answered else actions


class Forgetful(Wrapped):
    """Remembers the voters that it was told of first."""

    def on_members(self, voters: Sequence[NodeId], now: int) -> Actions:
        return () if self.voters else super().on_members(voters, now)


class Immodest(Wrapped):
    """Would lead without a vote."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return [*self.inner.on_suspect(leader, now), Nominate(self.context.self_id)]


class Deaf(Wrapped):
    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Actions:
        return ()


class Talkative(Wrapped):
    """Says every tenth of a second that it lives."""

    due = 0

    def deadline(self) -> int | None:
        return self.due

    def on_deadline(self, now: int) -> Actions:
        self.due = now + 100_000
        inner = self.inner.deadline()
        more = self.inner.on_deadline(now) if inner is not None and inner <= now else ()
        return [*more, *self.to_all(b"\xc1I live")]


class Insistent(Wrapped):
    """Says everything many times, lest it be lost."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return [action for action in self.inner.on_suspect(leader, now) for _ in range(8)]

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return [action for action in self.inner.on_message(source, body, now) for _ in range(3)]


class Hasty(Talkative):
    """Nobody leads? It tells everybody every millisecond."""

    leaderless = False

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        self.leaderless = True
        return self.inner.on_suspect(leader, now)

    def on_deadline(self, now: int) -> Actions:
        actions = list(super().on_deadline(now))
        self.due = now + 1_000
        return actions if self.leaderless else ()


class Doubting(Wrapped):
    """Nominates twice, to be sure."""

    def on_deadline(self, now: int) -> Actions:
        actions = list(self.inner.on_deadline(now))
        return actions + [action for action in actions if isinstance(action, Nominate)]


class Spinning(Wrapped):
    """Its deadline stays where it is."""

    due: int | None = None

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        self.due = now + 1_000
        return ()

    def deadline(self) -> int | None:
        return self.due


class Naive(Wrapped):
    """Takes bytes for text."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        if len(body) > 32:
            body.decode()
        return self.inner.on_message(source, body, now)


class Prolific(Wrapped):
    """Answers a long message with a long list."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return [SendElection(source, body[at : at + 10]) for at in range(0, len(body), 10)]


class Hoarding(Wrapped):
    def __init__(self, context: ElectionContext) -> None:
        super().__init__(context)
        self.seen: dict[bytes, int] = {}

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        self.seen[body] = now
        return self.inner.on_message(source, body, now)


class Polite(Wrapped):
    """Thanks for every message, also for thanks."""

    def on_message(self, source: NodeId, body: bytes, now: int) -> Actions:
        return [*self.inner.on_message(source, body, now), SendElection(source, b"\xc1thanks")]


class Wordy(Wrapped):
    """More than a datagram holds."""

    def on_suspect(self, leader: NodeId | None, now: int) -> Actions:
        return self.to_all(bytes(2_000))


class Mute(Wrapped):
    def on_leader(self, leader: NodeId, ballot: Ballot, now: int) -> Actions:
        return None  # type: ignore[return-value]


class Fractional(Wrapped):
    def deadline(self) -> int | None:
        due = self.inner.deadline()
        return None if due is None else due / 1  # type: ignore[return-value]


REJECTED: list[tuple[str, ElectionFactory, dict[str, object]]] = [
    ("test_the_same_calls_give_the_same_actions", Unsteady, {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(time.monotonic), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(perf_counter_ns), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(datetime.datetime.now), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(random.random), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(SystemRandom().random), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(os.getpid), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(lambda: print(end="")), {}),
    ("test_it_has_no_clock_no_chance_of_its_own_and_no_io", looking(lambda: Random()), {}),
    ("test_alone_it_nominates_itself", Sociable, {}),
    ("test_without_faults_all_nominate_the_same", Selfish, {"count": 5}),
    ("test_somebody_alive_is_nominated", Silent, {"count": 3, "loss": 0.0}),
    ("test_somebody_alive_is_nominated", Impatient, {"count": 7, "loss": 0.3}),
    ("test_somebody_alive_is_nominated", Wordy, {"count": 3, "loss": 0.0}),
    ("test_somebody_alive_is_nominated", Fractional, {"count": 3, "loss": 0.0}),
    ("test_a_nominee_that_dies_is_followed_by_another", Stubborn, {}),
    ("test_a_crash_in_the_middle_costs_a_round_only", Trusting, {}),
    ("test_voters_come_and_go_in_the_middle", Forgetful, {}),
    ("test_one_that_does_not_vote_nominates_nobody_but_voters", Immodest, {}),
    ("test_one_that_is_voted_out_in_the_middle_nominates_no_longer_itself", Forgetful, {}),
    ("test_a_leader_ends_it_at_once_where_it_is_heard", Deaf, {}),
    ("test_a_leader_ends_it_at_once_where_it_is_heard", Mute, {}),
    ("test_under_a_leader_that_all_hear_nobody_is_nominated", Deaf, {}),
    ("test_under_a_leader_that_all_hear_nobody_is_nominated", Talkative, {}),
    ("test_one_election_takes_few_messages", Insistent, {}),
    ("test_as_long_as_nobody_leads_it_keeps_within_its_budget", Hasty, {}),
    ("test_as_long_as_nobody_leads_it_keeps_within_its_budget", Doubting, {}),
    ("test_after_a_deadline_comes_a_later_one", Spinning, {}),
    ("test_garbage_is_ignored", Naive, {}),
    ("test_garbage_is_ignored", Prolific, {}),
    ("test_garbage_is_not_remembered", Hoarding, {}),
    ("test_a_message_does_not_start_a_storm", Polite, {}),
]


@pytest.mark.parametrize(("name", "factory", "arguments"), REJECTED)
def test_a_broken_election_is_rejected(
    name: str, factory: ElectionFactory, arguments: dict[str, object]
) -> None:
    with pytest.raises(AssertionError):
        getattr(ElectionSuite.of(factory)(), name)(**arguments)


def test_every_property_rejects_something() -> None:
    names = {name for name in dir(ElectionSuite) if name.startswith("test_")}
    rejecting = {name for name, _, _ in REJECTED}
    assert names - rejecting == {"test_clusters_under_faults_are_safe_and_live"}, (
        "an election alone breaks no cluster; see below"
    )


def test_a_cluster_that_fails_is_reported() -> None:
    """No election can bring that about, so the core is broken instead."""
    suite = ElectionSuite.of(Bully)()

    def run_them_all() -> None:
        for seed in range(100):
            suite.test_clusters_under_faults_are_safe_and_live(seed)

    with PLANTED[CANARY](), pytest.raises(AssertionError, match=r"seed \d+: safety"):
        run_them_all()


def test_a_failure_tells_what_happened() -> None:
    with pytest.raises(AssertionError, match=r"nominated are \[.*what happened:") as raised:
        ElectionSuite.of(Selfish)().test_without_faults_all_nominate_the_same(3)
    assert "1 nominates 1" in str(raised.value)
    assert "2 misses 3" in str(raised.value)


def test_a_function_may_make_elections() -> None:
    def make(context: ElectionContext) -> Election:
        return Bully(context)

    class Own(ElectionSuite):
        factory = staticmethod(make)

    for suite in (Own(), ElectionSuite.of(make)()):
        suite.test_alone_it_nominates_itself()
        made = suite.factory(ElectionContext(NodeId(1), Random(1), Timing()))
        assert isinstance(made, Bully)


PROPERTIES = sorted(name for name in dir(ElectionSuite) if name.startswith("test_"))
GIVEN: dict[str, list[dict[str, object]]] = {
    "test_without_faults_all_nominate_the_same": [{"count": 2}, {"count": 7}],
    "test_somebody_alive_is_nominated": [{"count": 1, "loss": 0.0}, {"count": 7, "loss": 0.3}],
    "test_clusters_under_faults_are_safe_and_live": [{"seed": 1}],
}


@pytest.mark.parametrize("name", PROPERTIES)
def test_the_election_of_the_documentation_passes(name: str) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    (block,) = re.findall(r"^<!-- test: election .*? -->\n```python\n(.*?)^```$", text, re.M | re.S)
    defined: dict[str, Any] = {"__name__": "__document__"}
    exec(compile(block, "plugins.md", "exec"), defined)
    suite = ElectionSuite.of(defined["RollCall"])()
    for arguments in GIVEN.get(name, [{}]):
        getattr(suite, name)(**arguments)


def test_the_example_passes_in_its_own_folder_in_three_lines() -> None:
    lines = (EXAMPLE / "test_lowest_load_election.py").read_text("utf-8").splitlines()
    assert len([line for line in lines if line]) == 3
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "."],
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
