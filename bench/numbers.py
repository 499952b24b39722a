"""The few statistics that the benches need.

Tested in tests/bench/test_bench.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

median = statistics.median

K = TypeVar("K")
T = TypeVar("T")


def quantile(values: Sequence[float], part: float) -> float:
    """The value at or below which `part` (0 to 1) of the `values` lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(part * len(ordered)) - 1))]


def by_step(values: Sequence[float], step: float, *, until: float) -> list[int]:
    """How many of the `values` fall into each step, from 0 to `until`."""
    steps = [0] * round(until / step)
    for value in values:
        if value < until:
            steps[int(value / step)] += 1
    return steps


@dataclass(frozen=True, slots=True)
class Ratio:
    """The ratio of two subjects that were measured in the same rounds: median, least and most of all rounds."""

    middle: float
    least: float
    most: float

    @property
    def spread(self) -> str:
        return f"{self.least:.2f}-{self.most:.2f}"


def ratio(values: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Compare round by round: a machine that is slow for a while slows both subjects."""
    each = [value / other for value, other in zip(values, peer, strict=True)]
    return Ratio(median(each), min(each), max(each))


def rotated(items: Mapping[K, T], by: int) -> list[tuple[K, T]]:
    """All items, beginning with another one in each round, so that no subject always goes first."""
    listed = list(items.items())
    start = by % len(listed)
    return listed[start:] + listed[:start]
