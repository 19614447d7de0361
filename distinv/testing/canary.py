"""A core that is broken on purpose, to show that the simulator would notice.

The planting is a switch of this test kit: it replaces one function of the core for the time of
a run, the product has no such switch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from distinv.core import quorum


def _too_few(count: int) -> int:
    """One vote less than a majority."""
    return max(1, count // 2)


@contextmanager
def minority_decides() -> Iterator[None]:
    """While this is entered, less than a majority counts as a quorum."""
    right = quorum.majority
    quorum.majority = _too_few
    try:
        yield
    finally:
        quorum.majority = right
