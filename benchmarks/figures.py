"""Many measurements in three numbers, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import TypeAlias

MEGABYTE = 1 << 20

Figures: TypeAlias = dict[str, float]
"""median, min and max of some measurements."""


def summary(values: Sequence[float]) -> Figures:
    return {
        "median": round(median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def show_figures(figures: Figures) -> str:
    digits = 0 if figures["median"] >= 100 else 1 if figures["median"] >= 10 else 2
    middle, low, high = (f"{figures[name]:,.{digits}f}" for name in ("median", "min", "max"))
    return f"{middle} ({low}-{high})"


def quantile(values: Sequence[float], part: float) -> float:
    """Of nothing, 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def longest_gap_ms(times_s: Sequence[float], begin: float, end: float) -> float:
    """The longest time without any of these within a span, its ends included."""
    inside = [begin, *(time for time in sorted(times_s) if begin <= time <= end), end]
    return 1_000 * max(later - earlier for earlier, later in pairwise(inside))
