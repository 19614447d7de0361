"""Many seeds, in ranges that can be taken up again, and what to type to see a failing one."""

from __future__ import annotations

import hashlib
import itertools
import json as json_module
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import msgspec

import distinv
from distinv.errors import ConfigError
from distinv.testing.simulator.faults import KINDS
from distinv.testing.simulator.planted import PLANTED
from distinv.testing.simulator.schedules import SCHEDULES
from distinv.testing.simulator.simulation import simulate

CHUNK = 20
"""Seeds that a worker process takes at a time, and that are recorded as one."""


class Failed(msgspec.Struct, frozen=True):
    seed: int
    failure: str
    again: str
    """What to type to see it."""


class Done(msgspec.Struct, frozen=True):
    """Seeds `first..last` were run."""

    first: int
    last: int
    events: int
    commands: int
    reads: int
    leaderships: int
    seconds: float
    """Of one worker process."""
    failed: tuple[Failed, ...]
    began: dict[str, int]
    """How many faults of each kind happened, by the names of their classes."""
    drawn: int
    """How many faults the plans had."""


class _Title(msgspec.Struct, frozen=True):
    """The first line of a record."""

    version: str
    plant: str | None
    schedule: str | None


class Record:
    """A file of JSON lines: which seeds this very code has run, and what came of them."""

    def __init__(self, path: Path | None, plant: str | None, schedule: str | None) -> None:
        """Raises ConfigError for a file that is none, or that other code has written."""
        self._path = path
        self.done: dict[int, Done] = {}
        title = _Title(code_version(), plant, schedule)
        if path is None:
            return
        if not path.exists():
            self._write(title)
            return
        try:
            whole, torn = _split_torn(path.read_bytes())
            if not whole and not msgspec.json.encode(title).startswith(torn):
                raise ValueError("it does not begin with a title")
            found = msgspec.json.decode(whole[0], type=_Title) if whole else title
            if found == title:
                for line in whole[1:]:
                    done = msgspec.json.decode(line, type=Done)
                    self.done[done.first] = done
        except (OSError, ValueError) as problem:
            raise ConfigError(f"{path} is no record of a campaign: {problem}") from None
        if found != title:
            raise ConfigError(
                f"{path} records what another version of the code did, another planted bug, or "
                "another schedule: what it ran says nothing of this one. Name a new file"
            )
        if torn:
            self._cut_to(sum(len(line) + 1 for line in whole))
        if not whole:
            self._write(title)

    def add(self, done: Done) -> None:
        self.done[done.first] = done
        if self._path is not None:
            self._write(done)

    def _cut_to(self, size_bytes: int) -> None:
        """The next line is to begin on a line of its own."""
        assert self._path is not None
        try:
            os.truncate(self._path, size_bytes)
        except OSError as problem:
            raise ConfigError(f"{self._path} cannot be written: {problem}") from None

    def _write(self, line: msgspec.Struct) -> None:
        assert self._path is not None
        try:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as problem:
            raise ConfigError(f"{self._path} cannot be written: {problem}") from None


def _split_torn(data: bytes) -> tuple[list[bytes], bytes]:
    """The lines of a record, and a last one that was not written to its end, if there is one.

    That is what a killed process or a full disk leaves behind.
    """
    *whole, torn = data.split(b"\n")
    if len(whole) > 1 and not torn and not _is_json(whole[-1]):
        torn = whole.pop()
    return whole, torn


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return True


def code_version() -> str:
    """A digest of the package's source: a seed is a run of one version of the code."""
    digest = hashlib.blake2b(digest_size=8)
    root = Path(distinv.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def replay_command(seed: int, plant: str | None, *options: str, schedule: str | None = None) -> str:
    """The one line that tells the story of a seed."""
    told = () if schedule is None else (f"--schedule {schedule}",)
    planted = () if plant is None else (f"--plant {plant}",)
    return " ".join((f"distinv simulate --seed {seed} --trace", *told, *planted, *options))


def _run_chunk(seeds: range, plant: str | None, schedule: str | None) -> Done:
    started = time.perf_counter()
    events = commands = reads = leaderships = 0
    failed: list[Failed] = []
    began: Counter[str] = Counter()
    drawn = 0
    with PLANTED[plant]() if plant else nullcontext():
        for seed in seeds:
            outcome = simulate(seed, schedule=SCHEDULES[schedule] if schedule else None)
            events += outcome.events
            commands += outcome.commands
            reads += outcome.reads
            leaderships += outcome.ballots
            drawn += len(outcome.plan.faults)
            began.update(type(outcome.plan.faults[each]).__name__ for each in outcome.struck)
            if outcome.failure:
                again = replay_command(seed, plant, schedule=schedule)
                failed.append(Failed(seed, outcome.failure, again))
    seconds = time.perf_counter() - started
    return Done(
        seeds[0],
        seeds[-1],
        events,
        commands,
        reads,
        leaderships,
        seconds,
        tuple(failed),
        dict(began),
        drawn,
    )


def _chunks(seeds: range) -> list[range]:
    """Aligned, so that ranges that overlap share them."""
    cuts = [seeds.start, *range((seeds.start // CHUNK + 1) * CHUNK, seeds.stop, CHUNK), seeds.stop]
    return [range(first, last) for first, last in itertools.pairwise(cuts)]


def _results(
    chunks: list[range], jobs: int, plant: str | None, schedule: str | None
) -> Iterator[Done]:
    if jobs <= 1:
        for chunk in chunks:
            yield _run_chunk(chunk, plant, schedule)
        return
    with ProcessPoolExecutor(jobs) as workers:
        try:
            count = len(chunks)
            yield from workers.map(_run_chunk, chunks, [plant] * count, [schedule] * count)
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def run(
    *,
    seeds: range,
    jobs: int | None = None,
    plant: str | None = None,
    schedule: str | None = None,
    record: Path | None = None,
    first_failure: bool = False,
    json: bool = False,
) -> int:
    """Run the seeds and print what happened. Returns the exit status: 1 when any seed fails.

    `plant` names a bug to run them with, one of `planted.PLANTED`, `schedule` a story to tell in
    them instead of drawn faults, one of `schedules.SCHEDULES`. `record` names a file that
    remembers what has been run: seeds that it holds already are not run again, but counted.
    `first_failure` stops at the first chunk of seeds with one that fails.

    Raises ConfigError for an unknown bug or schedule, or a record of other code.
    """
    check_plant(plant)
    check_schedule(schedule)
    book = Record(record, plant, schedule)
    before = {chunk[0]: book.done.get(chunk[0]) for chunk in _chunks(seeds)}
    kept = [
        done
        for chunk in _chunks(seeds)
        if (done := before[chunk[0]]) is not None and done.last == chunk[-1]
    ]
    todo = [chunk for chunk in _chunks(seeds) if before[chunk[0]] not in kept]
    started = time.perf_counter()
    results: list[Done] = []
    for done in _results(todo, jobs or os.cpu_count() or 1, plant, schedule):
        book.add(done)
        results.append(done)
        if not json:
            _print_progress(done, sum(each.last - each.first + 1 for each in kept + results), seeds)
        if first_failure and done.failed:
            break
    return _report(kept, results, time.perf_counter() - started, json)


def check_plant(plant: str | None) -> None:
    if plant is not None and plant not in PLANTED:
        raise ConfigError(f"there is no bug {plant!r} to plant; choose from {', '.join(PLANTED)}")


def check_schedule(schedule: str | None) -> None:
    if schedule is not None and schedule not in SCHEDULES:
        raise ConfigError(f"there is no schedule {schedule!r}; choose from {', '.join(SCHEDULES)}")


def _print_progress(done: Done, ran: int, seeds: range) -> None:
    for each in done.failed:
        print(f"seed {each.seed} fails: {each.failure}", flush=True)
        print(f"  again: {each.again}", flush=True)
    if ran % 500 == 0:
        print(f"{ran} of {len(seeds)} seeds", flush=True)


def _report(kept: list[Done], results: list[Done], seconds: float, json: bool) -> int:
    everything = kept + results
    ran = sum(each.last - each.first + 1 for each in results)
    rate, events = ran / seconds, sum(each.events for each in results) / seconds
    total = {
        "seeds": sum(each.last - each.first + 1 for each in everything),
        "commands": sum(each.commands for each in everything),
        "reads": sum(each.reads for each in everything),
        "leaderships": sum(each.leaderships for each in everything),
    }
    failed = [each for done in everything for each in done.failed]
    began = Counter(dict.fromkeys(KINDS, 0))
    for done in everything:
        began.update(done.began)
    drawn = sum(each.drawn for each in everything)
    if json:
        report = {
            "verdict": "failed" if failed else "ok",
            **total,
            "faults_drawn": drawn,
            "faults_began": dict(began),
            "failed": [msgspec.to_builtins(each) for each in failed],
            "run_now": ran,
            "seconds": round(seconds, 2),
            "schedules_per_second": round(rate, 2),
            "events_per_second": round(events),
        }
        print(json_module.dumps(report))
    else:
        recorded = f" ({total['seeds'] - ran} of them before)" if kept else ""
        print(
            f"{total['seeds']} schedules{recorded}, {len(failed)} failed; {rate:.1f} schedules/s, "
            f"{events:,.0f} events/s; {total['commands']:,} commands and {total['reads']:,} reads "
            f"checked, {total['leaderships']:,} leaderships"
        )
        if drawn:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in began.items())
            print(f"{began.total():,} of {drawn:,} faults began: {kinds}")
    return 1 if failed else 0
