"""The few statistics that the benches need."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

median = statistics.median

K = TypeVar("K")
T = TypeVar("T")


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 to 1) of them lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(part * len(ordered)) - 1))]


def by_step(values: Sequence[float], step: float, *, until: float) -> list[int]:
    """How many fall into each step from 0 on."""
    steps = [0] * round(until / step)
    for value in values:
        if value < until:
            steps[int(value / step)] += 1
    return steps


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of two subjects measured in the same rounds: the median of the rounds' ratios, and the extremes."""

    middle: float
    least: float
    most: float

    @property
    def spread(self) -> str:
        return f"{self.least:.2f}-{self.most:.2f}"


def ratio(values: Sequence[float], peer: Sequence[float]) -> Ratio:
    """Compares round by round, so that a machine that slows down for a while slows both."""
    each = [value / other for value, other in zip(values, peer, strict=True)]
    return Ratio(median(each), min(each), max(each))


def rotated(items: Mapping[K, T], by: int) -> list[tuple[K, T]]:
    """All of them, beginning with another one each round: nobody always goes first."""
    listed = list(items.items())
    start = by % len(listed)
    return listed[start:] + listed[:start]
