"""From a failing run to a small one that fails in the same way.

First the run is cut off where it failed, then faults are left out in ever smaller groups
(delta debugging: Zeller and Hildebrandt 2002), then every setting is tried in its simplest
form. A change of the plan changes the times of everything that follows, so each smaller plan
is tried with a few streams of chance before it is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import evolve

from distinv.testing.simulator.plan import Plan
from distinv.testing.simulator.simulation import Outcome

RUNS_MAX = 400
STREAMS = 4

_SIMPLEST: dict[str, tuple[object, ...]] = {
    "clients": (1, 2),
    "callers": (1, 3),
    "servers": (3, 5),
    "loss": (0.0, 0.05),
    "duplicate": (0.0,),
    "cancel": (0.0,),
    "sealed": (False,),
    "tight": (False,),
    "skew_us": (0,),
    "rate_ppm": (0,),
    "slow_disk": (-1,),
    "election": ("bully", "ring"),
    "delay_us": (20,),
    "latency_us": (100,),
    "reaction_us": (60,),
    "sync_us": (300,),
    "starts_us": (1_000,),
    "payload_bytes": (1_200,),
    "heal_all": (True,),
}


def failure_class(outcome: Outcome) -> str:
    """safety, liveness, crash, or "" for a run that passed."""
    return outcome.failure.partition(":")[0]


class Shrinker:
    """`run` runs a plan; `failed` is how the plan to shrink went.

    `found` is told of each smaller run, and how many were tried. `best` is the smallest so far.
    """

    def __init__(
        self,
        failed: Outcome,
        run: Callable[[Plan], Outcome],
        *,
        runs_max: int = RUNS_MAX,
        found: Callable[[Outcome, int], object] = lambda outcome, runs: None,
    ) -> None:
        self._runs_max = runs_max
        self._run = run
        self._found = found
        self._class = failure_class(failed)
        self._whole = failed.plan
        self.best = failed
        self.numbers = tuple(range(len(failed.plan.faults)))
        """Of the faults that are left, as the whole plan counts them."""
        self.runs = 0

    def shrink(self) -> Outcome:
        """The smallest run found that fails like the first one."""
        self._cut_off()
        while self.runs < self._runs_max:
            before = self.best
            self._leave_out_faults()
            self._simplify()
            self._cut_off()
            if self.best is before:
                break
        return self.best

    # --- steps --------------------------------------------------------------------------------

    def _accept(self, plan: Plan, numbers: tuple[int, ...], streams: int = STREAMS) -> bool:
        """Keep this plan if it fails in the same way, with one stream of chance or another."""
        for stream in (plan.stream, *(each for each in range(streams) if each != plan.stream)):
            if self.runs >= self._runs_max:
                return False
            self.runs += 1
            outcome = self._run(evolve(plan, stream=stream))
            if failure_class(outcome) == self._class:
                self.best, self.numbers = outcome, numbers
                self._found(outcome, self.runs)
                return True
        return False

    def _cut_off(self) -> None:
        """What was to come after the failure did not cause it."""
        best = self.best
        end_us = best.healed_us or best.ended_us + 1_000
        numbers = tuple(each for each in self.numbers if self._whole.faults[each].at_us < end_us)
        plan = evolve(best.plan, duration_us=min(end_us, best.plan.duration_us))
        if numbers != self.numbers or plan != best.plan:
            self._accept(self._with(plan, numbers), numbers, streams=1)

    def _with(self, plan: Plan, numbers: tuple[int, ...]) -> Plan:
        return evolve(plan, faults=self._whole.only(numbers).faults)

    def _leave_out_faults(self) -> None:
        size = max(1, len(self.numbers) // 2)
        while self.numbers and self.runs < self._runs_max:
            at, smaller = 0, False
            while at < len(self.numbers):
                rest = self.numbers[:at] + self.numbers[at + size :]
                if self._accept(self._with(self.best.plan, rest), rest):
                    smaller = True
                else:
                    at += size
            if size == 1 and not smaller:
                return
            size = max(1, size // 2)

    def _simplify(self) -> None:
        for name, value in self._simpler():
            plan = evolve(self.best.plan, **{name: value})  # type: ignore[arg-type]
            self._accept(plan, self.numbers)

    def _simpler(self) -> Iterator[tuple[str, object]]:
        for name, values in _SIMPLEST.items():
            for number, value in enumerate(values):
                if getattr(self.best.plan, name) in values[: number + 1]:
                    break  # as simple already, or simpler
                yield name, value
