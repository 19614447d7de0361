"""What the suites share: how one is made for a factory, and what is asked of pure code."""

from __future__ import annotations

import builtins
import gc
import random as random_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random, SystemRandom
from types import BuiltinFunctionType, FrameType, FunctionType, ModuleType
from typing import Any, Self

NOISE_BYTES = (0, 1, 2, 7, 64, 1_000, 10_000)
"""The lengths of the garbage that is sent; a message of the wire may well be 10 kB."""

_OUTSIDE = frozenset({"time", "posix", "nt", "_socket", "select", "_io", "_thread", "_asyncio"})
"""Modules in C that are a clock, an operating system, or a thread."""
_CALLS_OUTSIDE = frozenset({builtins.print, builtins.input, builtins.open})
_TIMES = frozenset({"now", "today", "utcnow"})
"""Of `datetime` and `date`."""


class Suite:
    """Tests of what a factory makes; which one is an attribute of the class."""

    @classmethod
    def _of(cls, **settings: Any) -> type[Self]:
        made: type[Self] = type(cls.__name__, (cls,), {"__doc__": cls.__doc__, **settings})
        return made


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is called in here that pure code may not call; each name once.

    Seen are calls into the interpreter's C code, however they were imported: clocks, files,
    sockets, threads, and any chance but that of a `Random` that was handed in.
    """
    seen: dict[str, None] = {}

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (_is_outside(called) or _seeds_by_chance(frame, called)):
            seen[f"{_name_of(called)} in {frame.f_code.co_qualname}"] = None

    found: list[str] = []
    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # others have callbacks there, which may well look at a clock
    sys.setprofile(watch)
    try:
        yield found
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
        found.extend(name for name in seen if "in watched" not in name)


def _is_outside(called: Any) -> bool:
    owner = getattr(called, "__self__", None)
    if isinstance(owner, Random):
        shared: Random = random_module.random.__self__  # type: ignore[attr-defined]
        return owner is shared or isinstance(owner, SystemRandom)
    if isinstance(owner, type):
        return owner.__module__ == "datetime" and called.__name__ in _TIMES
    if isinstance(called, BuiltinFunctionType) and called in _CALLS_OUTSIDE:
        return True
    return getattr(called, "__module__", None) in _OUTSIDE and isinstance(owner, ModuleType)


def _seeds_by_chance(frame: FrameType, called: Any) -> bool:
    """`Random()` asks the operating system for its seed, from C."""
    is_seeding = isinstance(getattr(called, "__self__", None), Random) and (
        called.__name__ == "seed" and frame.f_code.co_name == "seed"
    )
    return is_seeding and frame.f_locals.get("a", 0) is None


def _name_of(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    if isinstance(owner, ModuleType):
        return f"{owner.__name__}.{called.__name__}"
    return str(getattr(called, "__qualname__", called))


def size_of(root: object) -> int:
    """The bytes of everything that `root` holds on to, code and modules apart."""
    total, waiting = 0, [root]
    known = {id(root)}
    while waiting:
        thing = waiting.pop()
        total += sys.getsizeof(thing)
        for part in gc.get_referents(thing):
            if id(part) not in known and not isinstance(part, type | ModuleType | FunctionType):
                known.add(id(part))
                waiting.append(part)
    return total


def noise(random: Random, real: list[bytes]) -> Iterator[bytes]:
    """Bodies that nobody meant: random bytes, and real ones cut, grown and with a bit flipped."""
    for length in NOISE_BYTES:
        yield bytes(length)
        yield b"\xff" * length
        yield random.randbytes(length)
    for byte in range(256):
        yield bytes([byte])
    for body in real:
        yield body[: random.randrange(len(body) + 1)]
        yield body + random.randbytes(1 + random.randrange(40))
        if body:
            at = random.randrange(len(body))
            yield body[:at] + bytes([body[at] ^ (1 << random.randrange(8))]) + body[at + 1 :]
            yield body * 50


def growth_of(
    holder: object, feed: Callable[[int], None], *, first: int = 300, more: int = 3_000
) -> int:
    """By how many bytes `holder` grows when `feed` goes on after it has been fed `first` times."""
    for number in range(first):
        feed(number)
    before = size_of(holder)
    for number in range(first, first + more):
        feed(number)
    return size_of(holder) - before
