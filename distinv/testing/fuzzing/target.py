"""What can be fuzzed, and how a campaign holds it.

A *target* is one way for untrusted bytes into the program. From a seed it makes a `Fuzz`: a fresh
scene that draws inputs and takes them. Whatever `feed` raises is a failure: what a function is
allowed to raise is caught there and counted as an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from attrs import frozen

from distinv.testing.fuzzing.mutation import Mutator


class Fuzz(Protocol):
    """One scene. Inputs follow from the seed it was made with, and from nothing else."""

    def generate(self) -> bytes:
        """The next input."""
        ...

    def feed(self, data: bytes) -> str:
        """Take one input in, this scene's or any other; returns what came of it, in a word.

        Raises whatever must not happen.
        """
        ...

    def check(self) -> None:
        """Assert that the scene still works and has kept its bounds."""
        ...

    def sizes(self) -> dict[str, int]:
        """How much is kept, by table."""
        ...


@frozen
class Target:
    """One way in."""

    name: str
    about: str
    covers: tuple[str, ...]
    """The functions for untrusted bytes behind it, `module.Class.function` without the package."""
    make: Callable[[int], Fuzz]
    per_seed: int
    """Inputs for one scene: what a seed stands for."""
    check_every: int
    remembers: bool = False
    """What comes of an input depends on those before it: a reproducer needs them all."""


class Decoding:
    """A function that remembers nothing, or nearly: inputs are examples, spoilt."""

    def __init__(
        self,
        seed: int,
        examples: Sequence[bytes],
        take: Callable[[bytes], None],
        allowed: type[Exception] | tuple[type[Exception], ...],
        *,
        packed: bool = True,
    ) -> None:
        """`packed`: the examples are MessagePack. `allowed`: what `take` may raise."""
        self._mutator = Mutator(Random(seed), examples)
        self._examples = examples
        self._take = take
        self._allowed = allowed
        self._packed = packed

    def generate(self) -> bytes:
        mutator = self._mutator
        choice = mutator.below(20)
        if choice == 0:
            return mutator.noise()
        example = bytes(mutator.pick(self._examples))
        if choice == 1:
            return example
        return (
            mutator.restructured(example)
            if self._packed and choice % 2
            else mutator.spoilt(example)
        )

    def feed(self, data: bytes) -> str:
        try:
            self._take(data)
        except self._allowed as refused:
            return type(refused).__name__
        return "taken"

    def check(self) -> None:
        pass

    def sizes(self) -> dict[str, int]:
        return {}
