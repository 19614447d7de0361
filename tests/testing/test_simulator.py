"""The simulator finds nothing in the product, and finds what is planted in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distinv.election.bully import Bully
from distinv.errors import ConfigError
from distinv.testing.campaign import run
from distinv.testing.hostile import HOSTILE
from distinv.testing.planted import CANARY, PLANTED
from distinv.testing.simulation import simulate

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(40))
def test_a_seed_passes(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.failure == ""
    assert outcome.entries > 0


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_elections_cost_progress_only(name: str) -> None:
    for seed in range(3):
        outcome = simulate(seed, election=HOSTILE[name])
        assert outcome.failure == ""
        assert outcome.ballots > 0


def test_the_run_checks_something() -> None:
    outcomes = [simulate(seed) for seed in range(5)]
    assert sum(outcome.commands for outcome in outcomes) > 100
    assert sum(outcome.reads for outcome in outcomes) > 50


def test_one_seed_twice_is_the_same_run() -> None:
    assert simulate(7).digest == simulate(7).digest
    assert simulate(7).digest != simulate(8).digest


def test_an_election_can_be_tried_by_itself() -> None:
    assert simulate(7, election=Bully).failure == ""


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_is_a_run_whatever_the_hash_seed(hash_seed: str) -> None:
    code = "from distinv.testing.simulation import simulate; print(simulate(7).digest)"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == simulate(7).digest


@pytest.mark.parametrize(
    ("bug", "seeds"),
    [
        (CANARY, 40),
        ("truncate-matching", 100),
        ("read-unconfirmed", 60),
        ("retry-applied-twice", 40),
    ],
)
def test_a_planted_bug_is_found(bug: str, seeds: int) -> None:
    with PLANTED[bug]():
        assert any(simulate(seed, hostile=False).failure for seed in range(seeds))
    assert simulate(3, hostile=False).failure == "", "the bug is gone with its switch"


def test_a_failing_seed_is_named_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(seeds=range(40), jobs=1, canary=True) == 1
    printed = capsys.readouterr().out
    failing = next(line for line in printed.splitlines() if " fails: " in line).split()[1]
    assert f"distinv simulate --seed {failing} --trace --canary" in printed
    assert run(seeds=range(int(failing), int(failing) + 1), canary=True) == 1


def test_a_single_seed_prints_its_digest_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(seeds=range(5, 6), trace=True) == 0
    first, *story = capsys.readouterr().out.splitlines()
    word, digest = first.split()
    assert word == "trace"
    assert len(digest) >= 16
    assert set(digest) <= set("0123456789abcdef")
    assert any("is born with the voters" in line for line in story)


def test_an_unknown_bug_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="minority-decides, commit-before-sync"):
        run(seeds=range(1), plant="nope")
