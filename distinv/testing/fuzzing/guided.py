"""The same targets under atheris: coverage decides which inputs are worth changing further."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from distinv.testing.fuzzing.mutation import Mutator
from distinv.testing.fuzzing.registry import chosen
from distinv.testing.fuzzing.target import Fuzz, Target

EXAMPLES = 300
"""Inputs to begin with."""


class Guided:
    """Feeds what it is given; a scene is made anew after as many inputs as a seed stands for."""

    def __init__(self, target: Target, seed: int, inputs: int) -> None:
        self.fuzz: Fuzz = target.make(seed)
        self._target = target
        self._seed = seed
        self._left = inputs
        self._fed = 0
        self._outcomes: Counter[str] = Counter()
        self._slowest_us = 0

    def one_input(self, data: bytes) -> None:
        if self._fed and self._fed % self._target.per_seed == 0:
            self.fuzz.check()
            self.fuzz = self._target.make(self._seed)  # the same: inputs name its ids
        self._fed += 1
        start = time.perf_counter_ns()
        self._outcomes[self.fuzz.feed(data)] += 1
        self._slowest_us = max(self._slowest_us, (time.perf_counter_ns() - start) // 1_000)
        if self._fed == self._left:
            self._tell()

    def _tell(self) -> None:
        counted = ", ".join(f"{count:,} {word}" for word, count in self._outcomes.most_common())
        name, slowest = self._target.name, f"slowest {self._slowest_us:,} µs"
        print(f"{name}: {self._fed:,} inputs; {counted}; {slowest}", flush=True)


def run(atheris: Any, name: str, datagrams: int, seed: int, directory: Path) -> int:
    """Feed `datagrams` inputs to one target. A failure ends the process, and leaves its input.

    What was worth keeping stands in `directory`/corpus-NAME afterwards. Does not return: atheris
    ends the process. Raises ConfigError for an unknown target.
    """
    (target,) = chosen(name)
    guided = Guided(target, seed, datagrams)
    examples = [guided.fuzz.generate() for _ in range(EXAMPLES)]

    def mutate(data: bytes, size_max: int, number: int) -> bytes:
        """Half of the time by structure; the leading bytes that steer a scene may stay."""
        if number % 2:
            return bytes(atheris.Mutate(data, size_max))
        mutator = Mutator(Random(number), examples)
        steering = number // 2 % 3
        return (data[:steering] + mutator.restructured(data[steering:]))[:size_max]

    corpus = directory / f"corpus-{name}"
    corpus.mkdir(parents=True, exist_ok=True)
    for at, example in enumerate(examples):
        (corpus / f"example-{at}").write_bytes(example)
    arguments = [
        "fuzzing",
        f"-runs={datagrams}",
        f"-seed={seed + 1}",
        "-max_len=65535",
        "-timeout=20",
        "-rss_limit_mb=2048",
        f"-artifact_prefix={directory}/",
        str(corpus),
    ]
    atheris.Setup(arguments, guided.one_input, custom_mutator=mutate)
    atheris.Fuzz()
    return 0
