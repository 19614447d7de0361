"""The simulator finds nothing in the product, and finds what is planted in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from attrs import evolve

from distinv.cli.main import main
from distinv.election.bully import Bully
from distinv.errors import ConfigError
from distinv.testing.simulator import campaign, story
from distinv.testing.simulator.faults import KINDS, Clog, Crash, Cut, Eclipse, Fault, PowerCut
from distinv.testing.simulator.hostile import HOSTILE
from distinv.testing.simulator.plan import BOUNDS, LEFTOVERS, SETTINGS, Plan, draw_plan
from distinv.testing.simulator.planted import CANARY, PLANTED, TOLD_BY
from distinv.testing.simulator.shrink import Shrinker, failure_class
from distinv.testing.simulator.simulation import Outcome, simulate

ROOT = Path(__file__).parents[2]

MS = 1_000

AIMED: dict[str, tuple[Fault, ...]] = {
    "commit-before-sync": (PowerCut(0, (5 * MS, 5 * MS, 5 * MS), 20 * MS, 1_500 * MS),),
    "promise-before-sync": (Eclipse(0, "promise", "mid-sync", 5 * MS, 600 * MS),),
    "truncate-matching": tuple(Clog(0, "leader", f"server-{n}", 400 * MS) for n in range(3)),
}
"""What brings the rarer of the planted bugs to light; for the others any plan will do soon."""


def aimed_plan(bug: str, seed: int) -> Plan:
    """The seed's own; or, for a rarer bug, one with the faults that it is sensitive to."""
    plan = draw_plan(seed)
    if bug not in AIMED:
        return plan
    faults = tuple(evolve(fault, at_us=at * MS) for at in (400, 2_600) for fault in AIMED[bug])
    return evolve(
        plan,
        servers=3,
        late=(),
        clients=2,
        callers=3,
        think_us=30 * MS,
        loss=0.2 if bug == "truncate-matching" else 0.0,  # or links repair nothing
        born=True,
        election="bully",
        duration_us=4_500 * MS,
        events=8_000,
        faults=faults,
    )


def first_found(bug: str) -> tuple[int, Plan]:
    """The first seed of 60 that shows the bug by what must never happen, and its plan."""
    for seed in range(60):
        plan = aimed_plan(bug, seed)
        with PLANTED[bug]():
            outcome = simulate(seed, plan=plan)
        if failure_class(outcome) == "safety":
            return seed, plan
    raise AssertionError(f"{bug} was not found")


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


@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_a_quorum_goes_on_whatever_is_wrong_with_the_others(leftover: str) -> None:
    for seed in (2, 6):
        plan = evolve(draw_plan(seed), servers=5, heal_all=False, leftovers=(leftover,) * 7)
        outcome = simulate(seed, plan=evolve(plan, quorum=(3, 1, 4, 0, 2)), trace=True)
        assert outcome.failure == ""
        assert any(f"stays {leftover}" in line for line in outcome.lines)


def test_the_run_checks_something() -> None:
    outcomes = [simulate(seed) for seed in range(5)]
    assert sum(outcome.commands for outcome in outcomes) > 100
    assert sum(outcome.reads for outcome in outcomes) > 30


def test_one_seed_twice_is_the_same_run() -> None:
    assert simulate(7).digest == simulate(7).digest
    assert simulate(7).digest != simulate(8).digest


def test_an_election_can_be_tried_by_itself() -> None:
    assert simulate(7, election=Bully).failure == ""


@pytest.mark.parametrize("hash_seed", ["0", "4711"])
def test_a_seed_is_a_run_whatever_the_hash_seed(hash_seed: str) -> None:
    code = "from distinv.testing.simulator.simulation import simulate; print(simulate(7).digest)"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == simulate(7).digest


# --- would it notice? -----------------------------------------------------------------------------


@pytest.mark.parametrize("bug", [bug for bug in PLANTED if bug not in TOLD_BY])
def test_a_planted_bug_is_found(bug: str) -> None:
    seed, plan = first_found(bug)
    assert simulate(seed, plan=plan).failure == "", "the bug is gone with its switch"


def test_a_failing_seed_is_shrunk_to_what_matters() -> None:
    bug = "truncate-matching"
    seed, whole = first_found(bug)

    def run(plan: Plan) -> Outcome:
        with PLANTED[bug]():
            return simulate(seed, plan=plan)

    failed = run(whole)
    shrinker = Shrinker(failed, run, runs_max=40)
    smallest = shrinker.shrink()
    assert failure_class(smallest) == failure_class(failed)
    assert len(smallest.plan.faults) <= len(whole.faults)
    assert smallest.plan != whole
    again = whole.changed(_settings(smallest)).only(shrinker.numbers)
    assert run(again).digest == smallest.digest, "the line that is printed runs it"


def _settings(outcome: Outcome) -> list[str]:
    options = outcome.plan.options_from(draw_plan(outcome.seed))
    return [option.split()[1] for option in options if option.startswith("--set ")]


# --- plans ----------------------------------------------------------------------------------------


def test_a_plan_is_printed_with_every_fault() -> None:
    plan = draw_plan(11)
    settings, *faults = plan.describe()
    assert f"servers={plan.servers} " in settings
    assert len(faults) == len(plan.faults) > 0


def test_a_setting_that_does_not_exist_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="servers, clients, election"):
        draw_plan(1).changed(["losss=0"])


def test_a_setting_with_a_value_that_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match=r"'loss=much': loss is a number from 0\.0 to 1\.0"):
        draw_plan(1).changed(["loss=much"])


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ("loss=2.0", "from 0.0 to 1.0"),
        ("loss=-1", "from 0.0 to 1.0"),
        ("loss=nan", "from 0.0 to 1.0"),
        ("callers=0", "a whole number from 1 to 100"),
        ("servers=0", "from 1 to 7"),
        ("servers=100", "from 1 to 7"),
        ("servers=2.5", "a whole number"),
        ("payload_bytes=10", "from 576 to 65535"),
        ("think_us=0", "from 1 to"),
        ("sealed=0", "True, False"),
        ("election=foo", "bully, ring, "),
    ],
)
def test_a_setting_out_of_range_is_refused_with_what_is_allowed(setting: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        draw_plan(7).changed([setting])
    assert allowed in str(refusal.value)
    assert setting in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_number_of_a_plan_has_bounds_and_is_drawn_within_them() -> None:
    for seed in range(200):
        plan = draw_plan(seed)
        settings = [f"{name}={getattr(plan, name)}" for name in SETTINGS]
        assert plan.changed(settings) == plan


@pytest.mark.parametrize("name", BOUNDS)
def test_a_run_goes_on_at_both_ends_of_a_range(name: str) -> None:
    plan = evolve(draw_plan(5), clients=1, duration_us=200 * MS, events=2_000, faults=())
    for value in BOUNDS[name]:
        run = plan.changed([f"{name}={value}"])
        run = evolve(run, duration_us=min(run.duration_us, 400 * MS), events=min(run.events, 2_000))
        outcome = simulate(5, plan=run)
        assert failure_class(outcome) in ("", "liveness"), outcome.failure


@pytest.mark.parametrize("number", [999, -3])
def test_a_fault_that_the_plan_does_not_have_is_refused(number: int) -> None:
    last = len(draw_plan(7).faults) - 1
    with pytest.raises(ConfigError, match=rf"no fault {number}; .* 0\.\.{last}$"):
        story.tell(7, faults=[0, number])


@pytest.mark.parametrize("arguments", [["--seeds=-5:3"], ["--seed", "-1"], ["--seed", "x"]])
def test_a_seed_that_is_none_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["simulate", *arguments])
    assert exit.value.code == 2
    assert "number" in capsys.readouterr().err


# --- faults happen --------------------------------------------------------------------------------


def test_nearly_every_fault_comes_before_the_healing_and_none_is_forgotten() -> None:
    began: Counter[str] = Counter()
    drawn = came = 0
    for seed in range(0, 240, 3):
        outcome = simulate(seed)
        faults = outcome.plan.faults
        assert not set(outcome.struck) & set(outcome.missed)
        began.update(type(faults[number]).__name__ for number in outcome.struck)
        drawn += len(faults)
        came += len(outcome.struck) + len(outcome.missed)
    assert set(began) == set(KINDS), "each kind began at least once"
    assert came > drawn * 9 // 10


def test_the_story_says_which_faults_never_came() -> None:
    plan = draw_plan(7)
    faults = (Cut(0, ("client-0",), False, MS), Crash(MS, "nobody", MS), Crash(50_000 * MS, "x", 1))
    outcome = simulate(7, plan=evolve(plan, faults=faults))
    _, first, second, third = outcome.describe_plan()
    assert "(" not in first
    assert second.endswith("(found nobody to strike)")
    assert third.endswith("(never came: phase one ended first)")


def test_a_campaign_counts_the_faults_that_began(capsys: pytest.CaptureFixture[str]) -> None:
    campaign.run(seeds=range(3), jobs=1)
    line = capsys.readouterr().out.splitlines()[-1]
    assert " faults began: Crash " in line
    campaign.run(seeds=range(3), jobs=1, json=True)
    report = json.loads(capsys.readouterr().out)
    assert list(report["faults_began"]) == list(KINDS)
    assert 0 < sum(report["faults_began"].values()) <= report["faults_drawn"]


def test_who_comes_late_to_a_birth_is_not_born_but_joins() -> None:
    """Else two groups of blank servers might each be as many as they wait for."""
    born = 0
    for seed in range(60):
        plan = draw_plan(seed)
        if plan.born or not plan.late:
            continue
        outcome = simulate(seed, plan=plan, trace=True)
        assert outcome.failure == ""
        names = {
            line.split("is born with the voters ")[1]
            for line in outcome.lines
            if "is born with the voters " in line
        }
        assert len(names) == 1
        voters = names.pop().split(", ")
        assert not {f"server-{number}" for number in plan.late} & set(voters)
        assert len(voters) <= plan.servers - len(plan.late)
        born += 1
    assert born > 5


# --- many seeds -----------------------------------------------------------------------------------


def test_a_failing_seed_is_named_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.run(seeds=range(30), jobs=1, plant=CANARY, first_failure=True) == 1
    printed = capsys.readouterr().out
    failing = next(line for line in printed.splitlines() if " fails: " in line).split()[1]
    assert f"distinv simulate --seed {failing} --trace --plant {CANARY}" in printed
    assert story.tell(int(failing), plant=CANARY) == 1


def test_a_campaign_goes_on_from_its_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "runs.jsonl"
    assert campaign.run(seeds=range(3), jobs=1, record=record) == 0
    assert campaign.run(seeds=range(3), jobs=1, record=record, json=True) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (report["seeds"], report["run_now"]) == (3, 0)
    assert report["commands"] > 0


def test_a_record_of_other_code_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    campaign.run(seeds=range(1), jobs=1, record=record)
    with pytest.raises(ConfigError, match="another planted bug"):
        campaign.run(seeds=range(1), jobs=1, record=record, plant=CANARY)
    record.write_text("nonsense\n")
    with pytest.raises(ConfigError, match="no record of a campaign"):
        campaign.run(seeds=range(1), jobs=1, record=record)


@pytest.mark.parametrize("torn", [b'{"first":2,"la', b'{"first":2,"la\n', b"\0\0\0\n", b"{"])
def test_a_torn_last_line_of_a_record_is_dropped(
    torn: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "runs.jsonl"
    campaign.run(seeds=range(19, 21), jobs=1, record=record)
    whole = record.read_bytes()
    record.write_bytes(whole + torn)
    campaign.run(seeds=range(19, 21), jobs=1, record=record, json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["run_now"] == 0
    assert record.read_bytes() == whole


def test_a_record_torn_in_its_last_run_runs_that_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "runs.jsonl"
    campaign.run(seeds=range(19, 21), jobs=1, record=record)
    title, first, last = record.read_bytes().splitlines(keepends=True)
    for cut, again in ((title + first + last[:-1], 1), (title + last[:9], 2), (title[:9], 2)):
        record.write_bytes(cut)
        campaign.run(seeds=range(19, 21), jobs=1, record=record, json=True)
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["run_now"] == again
        assert len(record.read_bytes().splitlines()) == 3


def test_a_record_damaged_in_the_middle_is_refused_and_not_touched(tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    campaign.run(seeds=range(19, 21), jobs=1, record=record)
    title, first, last = record.read_bytes().splitlines(keepends=True)
    for damaged in (title + first[:9] + b"\n" + last, b'{"version":"x"', b"a note\nof mine"):
        record.write_bytes(damaged)
        with pytest.raises(ConfigError, match="no record of a campaign"):
            campaign.run(seeds=range(19, 21), jobs=1, record=record)
        assert record.read_bytes() == damaged


# --- one seed -------------------------------------------------------------------------------------


def test_a_single_seed_prints_its_digest_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert story.tell(5, trace=True) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    word, digest = first.split()
    assert word == "trace"
    assert len(digest) >= 16
    assert set(digest) <= set("0123456789abcdef")
    assert any("serving clients in term" in line for line in lines)


def test_a_changed_plan_says_how_to_run_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert story.tell(5, settings=["clients=1"], faults=[0], json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["again"] == "distinv simulate --seed 5 --trace --set clients=1 --faults 0"


def test_a_seed_that_passes_is_not_shrunk() -> None:
    with pytest.raises(ConfigError, match="nothing to shrink"):
        story.tell(5, shrink=True)


def test_shrinking_that_is_interrupted_tells_the_smallest_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, _ = first_found(CANARY)

    def interrupted(shrinker: Shrinker) -> Outcome:
        shrinker._cut_off()
        shrinker._leave_out_faults()
        raise KeyboardInterrupt

    monkeypatch.setattr(Shrinker, "shrink", interrupted)
    assert story.tell(seed, plant=CANARY, shrink=True) == 1
    printed = capsys.readouterr()
    assert "run 1: " in printed.err
    assert "the smallest so far" in printed.err
    again = printed.out.splitlines()[-1]
    assert again.startswith(f"  again: distinv simulate --seed {seed} --trace --plant {CANARY}")
    assert len(again.split("--")) > 4, "it is smaller"


def test_an_unknown_bug_lists_the_choices() -> None:
    with pytest.raises(ConfigError, match="minority-decides, commit-before-sync"):
        campaign.run(seeds=range(1), plant="nope")
