"""The hand-written schedules: their situations come about, and the servers come through them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attrs import evolve

from distinv.cli.main import main
from distinv.errors import ConfigError
from distinv.testing.simulator import campaign, story
from distinv.testing.simulator.planted import PLANTED, TOLD_BY
from distinv.testing.simulator.schedules import SCHEDULES
from distinv.testing.simulator.shrink import failure_class
from distinv.testing.simulator.simulation import Simulation, simulate
from distinv.testing.simulator.stage import Heal, Schedule, Stage, Story

SEEDS = 20


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_told_to_its_end_in_every_world(name: str) -> None:
    """Else it fails: with `situation` when what it is about did not come about."""
    for seed in range(SEEDS):
        outcome = simulate(seed, schedule=SCHEDULES[name])
        assert outcome.failure == "", f"seed {seed}"
        assert outcome.commands > 0


@pytest.mark.parametrize("bug", TOLD_BY)
def test_a_schedule_shows_the_bug_that_it_is_about(bug: str) -> None:
    schedule = SCHEDULES[TOLD_BY[bug]]
    with PLANTED[bug]():
        failures = [simulate(seed, schedule=schedule).failure for seed in range(6)]
    shown = [each for each in failures if each.partition(":")[0] in ("safety", "liveness")]
    assert len(shown) >= 3, failures


def test_a_swap_that_forgets_the_old_voters_makes_two_histories() -> None:
    """Of its three ways to go, the one in which the newcomer is cut off with the leader."""
    with PLANTED["old-set-forgotten"]():
        failures = [simulate(s, schedule=SCHEDULES["swap-and-election"]).failure for s in range(9)]
    assert any(each.startswith("safety: ") for each in failures), failures


def test_every_schedule_has_its_own_story() -> None:
    assert set(TOLD_BY.values()) <= set(SCHEDULES)
    assert len({schedule.summary for schedule in SCHEDULES.values()}) == len(SCHEDULES)
    assert all(schedule.summary.endswith(".") for schedule in SCHEDULES.values())


def test_a_world_is_a_run() -> None:
    schedule = SCHEDULES["unsynced-change"]
    assert simulate(3, schedule=schedule).digest == simulate(3, schedule=schedule).digest
    assert simulate(3, schedule=schedule).digest != simulate(4, schedule=schedule).digest


# --- the stage ------------------------------------------------------------------------------------


def told(tell: object, servers: int = 3) -> Schedule:
    return Schedule("told", tell, servers, ())  # type: ignore[arg-type]


def test_a_situation_that_does_not_come_about_fails_the_run() -> None:
    def never(stage: Stage) -> Story:
        yield stage.until("pigs fly", lambda: False, within_us=100_000)

    assert simulate(1, schedule=told(never)).failure == "situation: waited in vain until pigs fly"


def test_what_a_story_insists_on_is_its_situation_and_what_it_demands_is_safety() -> None:
    def insists(stage: Stage) -> Story:
        yield stage.somebody_leads()
        stage.insist(stage.leader is None, "nobody leads")

    def demands(stage: Stage) -> Story:
        yield stage.somebody_leads()
        stage.demand(stage.leader is None, "nobody leads")

    assert simulate(1, schedule=told(insists)).failure == "situation: not so: nobody leads"
    assert simulate(1, schedule=told(demands)).failure == "safety: not so: nobody leads"


def test_what_servers_owe_is_liveness_before_the_healing_and_everything_is_after_it() -> None:
    def before(stage: Stage) -> Story:
        yield stage.owed("pigs fly", lambda: False)

    def after(stage: Stage) -> Story:
        yield Heal(tuple(stage.servers))
        yield stage.until("pigs fly", lambda: False)

    for story_of in (before, after):
        failure = simulate(1, schedule=told(story_of)).failure
        assert failure == "liveness: waited in vain until pigs fly"


def test_only_who_heals_runs_on() -> None:
    def only_two(stage: Stage) -> Story:
        yield stage.somebody_leads()
        yield Heal(tuple(stage.servers[:2]))
        stage.demand(not stage.servers[2].alive, "the third is down")

    outcome = simulate(1, schedule=told(only_two), trace=True)
    assert outcome.failure == ""
    assert any("server-2" in line and "stays down" in line for line in outcome.lines)


def test_a_story_may_end_without_healing_anybody() -> None:
    def short(stage: Stage) -> Story:
        yield stage.while_passes(1_000)

    run = Simulation(1, SCHEDULES["unsynced-change"].draw(1), schedule=told(short))
    assert run.run().failure == ""
    assert run.servers[1].alive, "all of them heal"


def test_leadership_that_nobody_may_take_is_a_situation_missed() -> None:
    def make_lead(stage: Stage) -> Story:
        yield stage.somebody_leads()
        (other, *_) = [server for server in stage.servers if server is not stage.leader]
        other.crash()
        yield from stage.make_lead(other)

    outcome = simulate(1, schedule=told(make_lead))
    assert failure_class(outcome) == "situation"
    assert "leads" in outcome.failure


# --- the command ----------------------------------------------------------------------------------


def test_the_schedules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--schedule", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCHEDULES)
    assert "A sole leader loses power with its 1 → 3 change unsynced." in lines[0]


def test_all_schedules_are_told_one_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--schedule", "all", "--seeds", "3:4", "--jobs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("schedule ")] == list(SCHEDULES)
    assert not any("faults began" in line for line in lines)


def test_one_world_of_a_schedule_tells_its_story(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["simulate", "--schedule", "promoted-unaware", "--seed", "2"]
    assert main([*arguments, "--trace"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("story      the change is committed" in line for line in lines)
    assert lines[-1] == "seed 2 passes"
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert lines[0] == f"trace {report['trace']}"
    assert report["again"] == "distinv simulate --seed 2 --trace --schedule promoted-unaware"


def test_a_failing_world_is_named_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    bug, name = "old-set-forgotten", "unsynced-change"
    assert campaign.run(seeds=range(2), jobs=1, plant=bug, schedule=name) == 1
    printed = capsys.readouterr().out
    assert f"distinv simulate --seed 0 --trace --schedule {name} --plant {bug}" in printed
    assert story.tell(0, plant=bug, schedule=name) == 1


def test_a_failing_world_is_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    bug, name = "old-set-forgotten", "unsynced-change"
    assert story.tell(3, plant=bug, schedule=name, shrink=True) == 1
    again = capsys.readouterr().out.splitlines()[-1]
    assert f"--schedule {name} --plant {bug} --set clients=1 " in again


def test_a_record_is_of_one_schedule(tmp_path: Path) -> None:
    record = tmp_path / "runs.jsonl"
    campaign.run(seeds=range(1), jobs=1, record=record, schedule="unsynced-change")
    with pytest.raises(ConfigError, match="another schedule"):
        campaign.run(seeds=range(1), jobs=1, record=record)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--schedule", "nope"],
        ["--schedule", "nope", "--seed", "1"],
        ["--schedule", "all", "--seed", "1"],
    ],
)
def test_an_unknown_schedule_lists_the_choices(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 2
    assert "choose from unsynced-change, swap-and-election" in capsys.readouterr().err


def test_all_schedules_have_no_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = tmp_path / "runs.jsonl"
    assert main(["simulate", "--schedule", "all", "--record", str(record)]) == 2
    assert "--record is for one schedule" in capsys.readouterr().err


def test_a_plan_may_be_changed_under_a_schedule() -> None:
    schedule = SCHEDULES["swap-and-election"]
    plan = evolve(schedule.draw(5), clients=1, loss=0.0)
    outcome = simulate(5, schedule=schedule, plan=plan)
    assert outcome.failure == ""
    assert outcome.plan == plan
