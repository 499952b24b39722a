"""The bench of endurance: what it runs, and that it hides nothing."""

from __future__ import annotations

from dataclasses import replace

from bench.endurance import lanes, left_behind
from tests.lab.course import MORE_OBJECTS, Held, Outcome
from tests.lab.gauge import Gauge

GAUGE = Gauge(
    number=1,
    tasks=10,
    threads=1,
    descriptors=11,
    resident=1 << 26,
    heap=1 << 23,
    objects=200_000,
    clock=0,
    kinds={"dict": 100},
    doing={},
)
BEFORE = Held(GAUGE, served=3, connections=0)


def outcome(after: Held) -> Outcome:
    return Outcome(BEFORE, after, sessions=2, took=90)


def test_a_quick_run_has_every_trial() -> None:
    """Smaller, and not fewer."""
    assert [len(lane.trials) for lane in lanes(quick=True)] == [len(lane.trials) for lane in lanes(quick=False)]


def test_whatever_is_counted_is_missed() -> None:
    """One descriptor, or one process on the relay, is too much; of memory, more than the margin."""
    assert outcome(BEFORE).leaks() == []
    assert outcome(Held(replace(GAUGE, descriptors=12), served=3, connections=0)).leaks() == [
        "descriptors: 12 instead of 11"
    ]
    assert outcome(Held(GAUGE, served=4, connections=0)).leaks() == ["processes on the relay: 4 instead of 3"]
    grown = replace(GAUGE, objects=GAUGE.objects + MORE_OBJECTS + 1, kinds={"dict": 400})
    assert outcome(Held(grown, served=3, connections=0)).leaks() == ["objects: 1201 more, by kinds: {'dict': 300}"]


def test_the_table_has_differences_and_a_verdict() -> None:
    """Signs, so that nobody takes them for amounts."""
    table = left_behind(
        {"a trial": outcome(Held(replace(GAUGE, tasks=12, doing={"wait": 2}), served=3, connections=0))}
    ).markdown()
    assert "| a trial |     1.5 |        2 |    +2 |" in table
    assert "tasks: 12 instead of 10; of tasks there are more: {'wait': 2}" in table
