"""What a tunnel leaves behind after years of trouble, pressed into half an hour: long runs of tests/lab/trials.py.

    python -m bench.endurance [--json] [--quick]

The trials of one lane use one tunnel, one after the other. The lanes run side by side, each in a lab of its own.
Nothing is timed here. The table shows each trial that has left anything behind, and then the exit code is 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench.report import Arguments, Column, Table, begin, emit, progress
from tests.lab import trials
from tests.lab.course import MORE_HEAP, MORE_OBJECTS, MORE_RESIDENT, Course, Outcome, course
from tests.lab.trials import black_hole, unplugged
from tunneld.profile import Mode

MEGABYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial: its name in words, and what to do."""

    words: str
    go: Callable[[Course], object]


@dataclass(frozen=True, slots=True)
class Lane:
    """Trials that one tunnel goes through, one after the other, after a warm-up. With a `mode` it has two relays."""

    trials: tuple[Trial, ...]
    warm_up: Trial
    mode: Mode | None = None


def lanes(*, quick: bool) -> tuple[Lane, ...]:
    """All lanes, in full, or with a fiftieth of the repetitions."""

    def some(times: int) -> int:
        return max(1, times // 50) if quick else times

    # The first sessions import, compile and cache what later sessions find there.
    warm_up = Trial("warm-up", partial(trials.reconnect, times=some(50), seed=0))
    warm_turns = Trial("warm-up", partial(trials.relays_take_turns, times=some(5), seed=0))
    flaps, reconnects, visits, turns = some(150), some(1000), some(10_000), some(50)
    taking_turns = partial(trials.relays_take_turns, times=turns, seed=1)
    return (
        Lane((_flapping("a black hole", black_hole, flaps),), warm_up),
        Lane((_flapping("unplugged", unplugged, flaps),), warm_up),
        Lane(
            (Trial(f"{reconnects:,} forced reconnects", partial(trials.reconnect, times=reconnects, seed=1)),), warm_up
        ),
        Lane((Trial(f"two relays, {turns} failovers and returns", taking_turns),), warm_turns, Mode.FAILOVER),
        Lane((Trial(f"two relays at once, each lost {turns} times", taking_turns),), warm_turns, Mode.ALL),
        Lane(
            (
                Trial(f"{visits:,} connections, a third reset", partial(trials.visit, visits=visits, seed=1)),
                Trial("relay out of descriptors", partial(trials.relay_without_descriptors, seconds=2, most=8)),
                Trial("tunneld out of descriptors", partial(trials.host_without_descriptors, seconds=2, most=9)),
                Trial("both, and a crowd", partial(trials.visit_without_descriptors, visits=some(500), seed=2)),
                Trial("MaxSessions 1 and 0", partial(trials.few_sessions, visits=some(500))),
                Trial(f"disks full, {some(50)} reconnects", partial(trials.without_disk, times=some(50))),
                Trial("clock set back a day, and ahead", partial(trials.clock_steps, seconds=10)),
                Trial("no name server for a minute", partial(trials.without_names, seconds=60, times=some(5))),
            ),
            warm_up,
        ),
    )


def _flapping(what: str, fault: trials.Fault, times: int) -> Trial:
    return Trial(f"link {what}, {times} x 2 s of 4", partial(trials.flap, fault=fault, times=times))


def run_lane(lane: Lane) -> Mapping[str, Outcome]:
    """The outcome of each trial, by its words. A trial that fails ends the bench."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, course(Path(folder), mode=lane.mode) as ground:
        ground.after(lane.warm_up.go)
        for trial in lane.trials:
            found[trial.words] = outcome = ground.after(trial.go)
            progress(f"endurance: {trial.words}: {'; '.join(outcome.leaks()) or 'nothing is left'}")
    return found


def left_behind(found: Mapping[str, Outcome]) -> Table:
    return Table(
        "What is left behind",
        (
            Column("trial"),
            Column("minutes", ".1f"),
            Column("sessions", ",d"),
            *(
                Column(what, "+d")
                for what in ("tasks", "threads", "descriptors", "relay's processes", "connections", "objects")
            ),
            Column("heap, KiB", "+.0f"),
            Column("RSS, MiB", "+.1f"),
            Column("verdict"),
        ),
        tuple(
            (
                words,
                outcome.took / 60,
                outcome.sessions,
                *(outcome.after.counts[what] - count for what, count in outcome.before.counts.items()),
                outcome.growth("objects"),
                outcome.growth("heap") / 1024,
                outcome.growth("resident") / MEGABYTE,
                "; ".join(outcome.leaks()) or "all as before",
            )
            for words, outcome in found.items()
        ),
        _note(found),
    )


def _note(found: Mapping[str, Outcome]) -> str:
    first = next(iter(found.values())).before
    counts = ", ".join(f"{count} {what}" for what, count in first.counts.items())
    return (
        f"What tunneld has more after a trial than before it. Before the first row it had {counts} and "
        f"{first.gauge.resident / MEGABYTE:.0f} MiB. Sessions: those that came up during the trial. A trial may leave "
        f"{MORE_OBJECTS} objects, {MORE_HEAP >> 10} KiB of heap and {MORE_RESIDENT // MEGABYTE} MiB resident more, and "
        "nothing else."
    )


def run(given: Arguments) -> Mapping[str, Outcome]:
    planned = lanes(quick=given.quick)
    with ThreadPoolExecutor(len(planned)) as pool:
        return {words: outcome for lane in pool.map(run_lane, planned) for words, outcome in lane.items()}


def main() -> int:
    given = begin(__doc__ or "")
    found = run(given)
    emit("endurance", [left_behind(found)], given)
    return int(any(outcome.leaks() for outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
