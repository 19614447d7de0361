"""Many seeds, and what to type to see a failing one again."""

from __future__ import annotations

import json as json_module
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext

from distinv.errors import ConfigError
from distinv.testing.planted import CANARY, PLANTED
from distinv.testing.simulation import Outcome, simulate

CHUNK = 8
"""Seeds that a worker process takes at a time."""


def _one(seed: int, plant: str | None, trace: bool) -> Outcome:
    with PLANTED[plant]() if plant else nullcontext():
        # The broken core is given honest elections: the fault to find is the core's.
        return simulate(seed, trace=trace, hostile=False if plant else None)


def _some(seeds: tuple[int, ...], plant: str | None) -> list[Outcome]:
    return [_one(seed, plant, False) for seed in seeds]


def _outcomes(seeds: range, jobs: int, plant: str | None) -> Iterator[Outcome]:
    if jobs <= 1:
        for seed in seeds:
            yield _one(seed, plant, False)
        return
    chunks = [tuple(seeds[at : at + CHUNK]) for at in range(0, len(seeds), CHUNK)]
    with ProcessPoolExecutor(jobs) as workers:
        yield from _flatten(workers.map(_some, chunks, [plant] * len(chunks)))


def _flatten(groups: Iterable[list[Outcome]]) -> Iterator[Outcome]:
    for group in groups:
        yield from group


def _replay_command(seed: int, plant: str | None) -> str:
    switch = "" if plant is None else " --canary" if plant == CANARY else f" --plant {plant}"
    return f"distinv simulate --seed {seed} --trace{switch}"


def run(
    *,
    seeds: range,
    jobs: int | None = None,
    canary: bool = False,
    plant: str | None = None,
    trace: bool = False,
    json: bool = False,
) -> int:
    """Run the seeds and print what happened. Returns the exit status: 1 when any seed fails.

    `plant` names a bug of `distinv.testing.planted` to run them with; `canary` is one of them.
    Raises ConfigError for an unknown one.

    A single seed prints `trace` and the digest of its run first; with `trace`, its story.
    """
    if canary:
        plant = plant or CANARY
    if plant is not None and plant not in PLANTED:
        raise ConfigError(f"there is no bug {plant!r} to plant; choose from {', '.join(PLANTED)}")
    if len(seeds) == 1:
        return _run_single(seeds[0], plant, trace, json)
    started = time.perf_counter()
    ran = events = commands = reads = ballots = 0
    failed: list[Outcome] = []
    for outcome in _outcomes(seeds, jobs or os.cpu_count() or 1, plant):
        ran += 1
        events += outcome.events
        commands += outcome.commands
        reads += outcome.reads
        ballots += outcome.ballots
        if outcome.failure:
            failed.append(outcome)
            if not json:
                print(f"seed {outcome.seed} fails: {outcome.failure}", flush=True)
                print(f"  again: {_replay_command(outcome.seed, plant)}", flush=True)
        elif not json and ran % 500 == 0:
            print(f"{ran} of {len(seeds)} seeds, {len(failed)} failed", flush=True)
    seconds = time.perf_counter() - started
    if json:
        report = {
            "verdict": "failed" if failed else "ok",
            "seeds": ran,
            "failed": [
                {
                    "seed": each.seed,
                    "failure": each.failure,
                    "again": _replay_command(each.seed, plant),
                }
                for each in failed
            ],
            "events": events,
            "commands": commands,
            "reads": reads,
            "ballots": ballots,
            "seconds": round(seconds, 2),
            "schedules_per_second": round(ran / seconds, 2),
        }
        print(json_module.dumps(report))
    else:
        print(
            f"{ran} schedules, {len(failed)} failed; {ran / seconds:.1f} schedules/s, "
            f"{events / seconds:,.0f} events/s; {commands:,} commands and {reads:,} reads checked, "
            f"{ballots:,} leaderships"
        )
    return 1 if failed else 0


def _run_single(seed: int, plant: str | None, trace: bool, json: bool) -> int:
    outcome = _one(seed, plant, trace)
    if json:
        report = {
            "verdict": "failed" if outcome.failure else "ok",
            "seed": seed,
            "trace": outcome.digest,
            "failure": outcome.failure,
            "plan": outcome.plan.describe(),
            "events": outcome.events,
        }
        print(json_module.dumps(report))
        return 1 if outcome.failure else 0
    print(f"trace {outcome.digest}")
    print(f"plan: {outcome.plan.describe()}")
    for line in outcome.lines:
        print(line)
    print(
        f"{outcome.events} events, {outcome.entries} entries, {outcome.commands} commands and "
        f"{outcome.reads} reads answered, {outcome.ballots} leaderships"
    )
    if outcome.failure:
        print(f"seed {seed} fails: {outcome.failure}")
        print(f"  again: {_replay_command(seed, plant)}")
        return 1
    print(f"seed {seed} passes")
    return 0
