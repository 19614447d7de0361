"""Many inputs to many targets, and what to type to see a failing one again."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from attrs import define, field, frozen

from distinv.errors import ConfigError
from distinv.testing.fuzzing.registry import TARGETS, chosen
from distinv.testing.fuzzing.target import Fuzz, Target

SLOW_US = 3_000_000
"""CPU that no single input may take, together with the turns that follow it."""
GROWTH_BYTES = 256 << 20
"""A process may not have grown by more since its first seed: scenes come and go."""
SAMPLE_EVERY = 256
_RSS_UNIT_BYTES = 1_024  # of ru_maxrss, on Linux


@define
class Report:
    """What came of some inputs to one target."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    """Spent feeding, without drawing the inputs."""
    outcomes: Counter[str] = field(factory=Counter)
    slowest_us: int = 0
    slowest: str = ""
    """The input that took longest, where it stands and how it begins."""
    sizes: dict[str, int] = field(factory=dict)
    """The most that was seen in each table."""
    peak_bytes: int = 0
    """Of the process."""
    failures: list[Failure] = field(factory=list)

    def add(self, other: Report) -> None:
        self.inputs += other.inputs
        self.seconds += other.seconds
        self.outcomes += other.outcomes
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        self.failures += other.failures
        if other.slowest_us > self.slowest_us:
            self.slowest_us, self.slowest = other.slowest_us, other.slowest
        for name, size in other.sizes.items():
            self.sizes[name] = max(self.sizes.get(name, 0), size)


@frozen
class Failure:
    """An input after which something was wrong."""

    target: str
    seed: int
    number: int
    """How many inputs of the seed were fed, this one included."""
    problem: str
    inputs: tuple[bytes, ...]
    """The last one; of a scene that remembers, all of the seed, in order."""

    @property
    def again(self) -> str:
        return (
            f"python -m distinv.testing.fuzzing --target {self.target} --seed {self.seed}"
            f" --datagrams {self.number}"
        )

    def write(self, directory: Path) -> Path:
        """Write the inputs as lines of hex, behind a line that names target and seed."""
        path = directory / f"fuzz-{self.target}-{self.seed}.hex"
        lines = [f"{self.target} {self.seed}", *(data.hex() or "-" for data in self.inputs)]
        path.write_text("\n".join(lines) + "\n", "ascii")
        return path


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES


def run_seed(name: str, seed: int, count: int) -> Report:
    """The first `count` inputs of a seed."""
    target = TARGETS[name]
    report = Report(name)
    fuzz = target.make(seed)
    fed: list[bytes] = []
    try:
        _feed(target, fuzz, seed, count, fed, report)
        fuzz.check()
        _sample(fuzz, report)
    except Exception as problem:  # whatever it was, it is what is looked for
        text = f"{type(problem).__name__}: {problem}"[:500]
        inputs = report.inputs
        report.failures.append(Failure(name, seed, inputs, text + _place(problem), tuple(fed)))
    report.peak_bytes = _peak_bytes()
    return report


def _feed(
    target: Target, fuzz: Fuzz, seed: int, count: int, fed: list[bytes], report: Report
) -> None:
    # What passes on the clock may be another process's; CPU time takes long to ask for.
    outcomes, clock, spent_ns, slowest_ns = report.outcomes, time.perf_counter_ns, 0, 0
    cpu_ns = time.thread_time_ns()
    for number in range(1, count + 1):
        data = fuzz.generate()
        if not target.remembers:
            fed.clear()
        fed.append(data)
        report.inputs = number
        start = clock()
        outcomes[fuzz.feed(data)] += 1
        took = clock() - start
        spent_ns += took
        if took > slowest_ns:
            slowest_ns = took
            report.slowest_us = took // 1_000
            report.slowest = f"seed {seed}, input {number}, {len(data)} bytes: {data[:24].hex()}"
        report.seconds = spent_ns / 1e9
        if number % SAMPLE_EVERY == 0 or took > SLOW_US * 1_000:
            before_ns, cpu_ns = cpu_ns, time.thread_time_ns()
            assert took < SLOW_US * 1_000 or cpu_ns - before_ns < SLOW_US * 1_000, "too slow"
            _sample(fuzz, report)
        if number % target.check_every == 0 and number != count:
            fuzz.check()


def _sample(fuzz: Fuzz, report: Report) -> None:
    for name, size in fuzz.sizes().items():
        report.sizes[name] = max(report.sizes.get(name, 0), size)


def _place(problem: BaseException) -> str:
    """Where it was raised."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    path = Path(trace.tb_frame.f_code.co_filename)
    return f" ({'/'.join(path.parts[-2:])}:{trace.tb_lineno})"


def replay(path: Path) -> int:
    """Feed what `Failure.write` wrote, to a scene of the same seed. The exit status.

    Raises ConfigError for a file that is none of those.
    """
    target, seed, inputs = _read_reproducer(path)
    fuzz = target.make(seed)
    outcomes: Counter[str] = Counter()
    for number, data in enumerate(inputs, 1):
        outcomes[fuzz.feed(data)] += 1
        if number % target.check_every == 0:
            fuzz.check()
    fuzz.check()
    print(f"{target.name}, seed {seed}: {_counted(outcomes)}; nothing is wrong")
    return 0


def _read_reproducer(path: Path) -> tuple[Target, int, list[bytes]]:
    try:
        first, *lines = path.read_text("ascii").splitlines() or [""]
    except OSError as error:
        raise ConfigError(f"the inputs in {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigError(f"{path} holds no inputs: it is not lines of hex") from None
    name, _, seed = first.partition(" ")
    if name not in TARGETS or not seed.isdecimal():
        raise ConfigError(f"{path}:1: give a target and its seed, such as 'insider 512'")
    inputs = []
    for number, line in enumerate(lines, 2):
        try:
            inputs.append(b"" if line == "-" else bytes.fromhex(line))
        except ValueError:
            raise ConfigError(f"{path}:{number}: an input is a line of hex, or -") from None
    return TARGETS[name], int(seed), inputs


# --- campaigns ----------------------------------------------------------------------------------


def seeds_of(target: Target, seed: int, datagrams: int, per_seed: int) -> list[tuple[int, int]]:
    """(seed, inputs) until there are `datagrams`."""
    size = per_seed or target.per_seed
    whole, rest = divmod(datagrams, size)
    shares = [(seed + number, size) for number in range(whole)]
    return [*shares, (seed + whole, rest)] if rest else shares


def _reports(target: Target, shares: list[tuple[int, int]], jobs: int) -> Iterator[Report]:
    if jobs <= 1:
        for seed, count in shares:
            yield run_seed(target.name, seed, count)
        return
    names, seeds, counts = [target.name] * len(shares), *zip(*shares)
    with ProcessPoolExecutor(jobs) as workers:
        yield from workers.map(run_seed, names, seeds, counts)


def run(
    *,
    target: str,
    datagrams: int,
    seed: int = 0,
    per_seed: int = 0,
    jobs: int = 1,
    directory: Path = Path(),
    as_json: bool = False,
) -> int:
    """Feed `datagrams` inputs to each target chosen. Returns the exit status: 1 for a failure.

    Raises ConfigError for an unknown target.
    """
    failed = False
    for each in chosen(target):
        started = time.perf_counter()
        shares = seeds_of(each, seed, datagrams, per_seed)
        total, first_peak = Report(each.name), 0
        for report in _reports(each, shares, jobs):
            total.add(report)
            first_peak = first_peak or report.peak_bytes
            for failure in report.failures:
                _tell_failure(failure, directory, as_json)
        grown = total.peak_bytes - first_peak
        if grown > GROWTH_BYTES:
            print(f"{each.name}: the process has grown by {grown >> 20} MiB")
        failed |= bool(total.failures) or grown > GROWTH_BYTES
        seconds = time.perf_counter() - started
        _tell(total, grown, seconds, shares[-1][0] + 1 if shares else seed, as_json)
    return 1 if failed else 0


def _tell_failure(failure: Failure, directory: Path, as_json: bool) -> None:
    path = failure.write(directory)
    if not as_json:
        print(f"{failure.target}, seed {failure.seed}, input {failure.number}: {failure.problem}")
        print(f"  again: {failure.again}")
        print(f"  or:    python -m distinv.testing.fuzzing --replay {path}", flush=True)


def _tell(total: Report, grown: int, seconds: float, next_seed: int, as_json: bool) -> None:
    if as_json:
        print(
            json.dumps(
                {
                    "target": total.target,
                    "verdict": "failed" if total.failures else "ok",
                    "inputs": total.inputs,
                    "seconds": round(seconds, 2),
                    "inputs_per_second": round(total.inputs / seconds),
                    "feeding_seconds": round(total.seconds, 2),
                    "outcomes": dict(total.outcomes),
                    "slowest_us": total.slowest_us,
                    "slowest": total.slowest,
                    "peak_mib": total.peak_bytes >> 20,
                    "grown_mib": grown >> 20,
                    "sizes": total.sizes,
                    "failures": [
                        {"problem": each.problem, "again": each.again} for each in total.failures
                    ],
                    "next_seed": next_seed,
                }
            ),
            flush=True,
        )
        return
    verdict = f"{len(total.failures)} FAILED" if total.failures else "ok"
    print(
        f"{total.target:<10} {verdict}: {total.inputs:,} inputs, "
        f"{total.inputs / seconds:,.0f}/s; {_counted(total.outcomes)}"
    )
    print(f"{'':<10} slowest {total.slowest_us:,} µs ({total.slowest})")
    kept = ", ".join(f"{name} {size}" for name, size in total.sizes.items() if size)
    print(
        f"{'':<10} peak {total.peak_bytes >> 20} MiB, {grown >> 20} MiB since the first seed; "
        f"next seed {next_seed}" + (f"; at most: {kept}" if kept else ""),
        flush=True,
    )


def _counted(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.most_common())
