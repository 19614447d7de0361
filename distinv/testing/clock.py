"""Time in tests: the event loop's, which may jump.

Servers and clients live by the machine's clock, and their sleeps by the event loop's. In a test
whose loop has a clock of its own both have to be that one; `loop_time` replaces the former for as
long as it lasts. The product has no such switch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar

import anyio

from distinv.client import client
from distinv.client import driver as client_driver
from distinv.runtime import driver, opening, roll_call

_SECOND_US = 1_000_000

_READERS: tuple[ModuleType, ...] = (driver, opening, roll_call, client_driver, client)
"""The modules that know the time, all by the name `monotonic_us`."""


def jumping_clock() -> tuple[str, dict[str, Any]]:
    """A trio whose time jumps to the next deadline as soon as every task waits.

    It is what a fixture `anyio_backend` returns. Ten minutes of waiting for a server that is down
    then pass at once; work still takes its time, by which no clock moves. Made anew for each test.
    """
    from trio.testing import MockClock

    return "trio", {"clock": MockClock(autojump_threshold=0)}


class _Lived:
    """How many want the loop's time, and what was there before."""

    count: ClassVar[int] = 0
    before: ClassVar[list[Any]] = []


@contextmanager
def loop_time() -> Iterator[None]:
    """Servers and clients that are entered in here live by the clock of the event loop."""
    if _Lived.count == 0:
        _Lived.before = [module.__dict__["monotonic_us"] for module in _READERS]
        for module in _READERS:
            vars(module)["monotonic_us"] = _loop_us
    _Lived.count += 1
    try:
        yield
    finally:
        _Lived.count -= 1
        if _Lived.count == 0:
            for module, before in zip(_READERS, _Lived.before, strict=True):
                vars(module)["monotonic_us"] = before


def _loop_us() -> int:
    return int(anyio.current_time() * _SECOND_US)
