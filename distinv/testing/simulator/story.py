"""One seed: its plan, its story, and, when it fails, a smaller story that fails as well."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import partial

from distinv.errors import ConfigError
from distinv.testing.simulator.campaign import check_plant, check_schedule, replay_command
from distinv.testing.simulator.plan import Plan, draw_plan
from distinv.testing.simulator.planted import PLANTED
from distinv.testing.simulator.schedules import SCHEDULES
from distinv.testing.simulator.shrink import Shrinker
from distinv.testing.simulator.simulation import Outcome, simulate


def tell(
    seed: int,
    *,
    plant: str | None = None,
    schedule: str | None = None,
    settings: Sequence[str] = (),
    faults: Iterable[int] | None = None,
    trace: bool = False,
    shrink: bool = False,
    json: bool = False,
) -> int:
    """Run one seed and print its digest and plan; with `trace`, its story. 1 when it fails.

    `settings` are changes of the plan, such as "loss=0", `faults` the numbers of those to keep.
    `shrink` looks for a smaller run that fails in the same way, and tells of that one.
    `schedule` names a story that takes the place of the plan's faults.
    Raises ConfigError for an unknown bug, schedule or setting.
    """
    check_plant(plant)
    check_schedule(schedule)
    told = SCHEDULES[schedule] if schedule else None
    whole = told.draw(seed) if told else draw_plan(seed)
    plan = whole.changed(settings)
    if faults is not None:
        plan = plan.only(check_faults(faults, plan))

    def run(plan: Plan, trace: bool = False) -> Outcome:
        with PLANTED[plant]() if plant else nullcontext():
            return simulate(seed, plan=plan, trace=trace, schedule=told)

    outcome = run(plan, trace and not shrink)
    if shrink:
        if not outcome.failure:
            raise ConfigError(f"seed {seed} passes: there is nothing to shrink")
        shrinker = Shrinker(outcome, run, found=partial(_print_found, whole))
        try:
            smallest = shrinker.shrink()
            print(f"shrunk in {shrinker.runs} runs", file=sys.stderr)
        except KeyboardInterrupt:
            smallest = shrinker.best
            print(f"stopped after {shrinker.runs} runs: the smallest so far", file=sys.stderr)
        outcome = run(smallest.plan, trace=True)
    again = replay_command(seed, plant, *outcome.plan.options_from(whole), schedule=schedule)
    if json:
        _print_json(outcome, again)
    else:
        _print(outcome, again)
    return 1 if outcome.failure else 0


def check_faults(faults: Iterable[int], plan: Plan) -> list[int]:
    """The same numbers. Raises ConfigError for one that the plan has no fault of."""
    wanted = list(faults)
    for number in wanted:
        if not 0 <= number < len(plan.faults):
            numbers = f"0..{len(plan.faults) - 1}" if plan.faults else "none: it has no fault"
            raise ConfigError(f"there is no fault {number}; the numbers of this plan are {numbers}")
    return wanted


def _print_found(whole: Plan, outcome: Outcome, runs: int) -> None:
    """One line for a smaller run; how it was changed is how far the search has come."""
    plan = outcome.plan
    options = " ".join(plan.options_from(whole))
    print(
        f"run {runs}: {len(plan.faults)} of {len(whole.faults)} faults, "
        f"{outcome.events} events: {options}",
        file=sys.stderr,
        flush=True,
    )


def _print(outcome: Outcome, again: str) -> None:
    print(f"trace {outcome.digest}")
    for line in outcome.describe_plan():
        print(f"plan  {line}")
    for line in outcome.lines:
        print(line)
    print(
        f"{outcome.events} events, {outcome.entries} entries, {outcome.commands} commands and "
        f"{outcome.reads} reads answered, {outcome.ballots} leaderships, "
        f"{len(outcome.struck)} of {len(outcome.plan.faults)} faults began"
    )
    if outcome.failure:
        print(f"seed {outcome.seed} fails: {outcome.failure}")
        print(f"  again: {again}")
    else:
        print(f"seed {outcome.seed} passes")


def _print_json(outcome: Outcome, again: str) -> None:
    report = {
        "verdict": "failed" if outcome.failure else "ok",
        "seed": outcome.seed,
        "trace": outcome.digest,
        "failure": outcome.failure,
        "again": again,
        "plan": outcome.describe_plan(),
        "events": outcome.events,
        "faults_began": list(outcome.struck),
    }
    print(json_module.dumps(report))
