"""Keystroke echo of stock mosh through the ingress, where UDP is allowed nowhere but from client to relay.

    python -m bench.ingress [--json] [--quick]

Real mosh-client and ssh under a pty, prediction off, 80 ms from client to host and back. Each condition starts
everything anew; then the subjects type in turn, a batch each, until everybody has his keystrokes.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from bench.numbers import median, quantile, rotated
from bench.report import Arguments, Column, Table, begin, emit, progress
from bench.scenery import COPY, DIRECT, INGRESS, SOCAT, SOCAT_SESSION, SUBJECTS, Stage, stage
from bench.target import GIVE
from bench.traffic import asked
from tests.lab.terminal import Terminal

PAUSE = (0.02, 0.12)  # seconds between an echo and the next key, evenly: the timers of mosh must not fall into step
SETTLE = 1.0  # seconds after a copy has ended, for queues to run empty
GROWN = 3.0  # seconds from a copy's start until its queues stand
LIMITED = 20_000_000  # bits a second
EVERYTHING = 1 << 40  # bytes: a copy that does not end by itself


@dataclass(frozen=True, slots=True)
class Size:
    keys: int  # for each cell
    batch: int
    warm_up: int


FULL = Size(keys=240, batch=40, warm_up=10)
QUICK = Size(keys=40, batch=20, warm_up=5)


@dataclass(frozen=True, slots=True)
class Condition:
    """Faults of the host's link, each way; `up` are more of them for the way to the relay. `copying`: see `measure`."""

    title: str
    link: Mapping[str, float] = field(default_factory=dict)
    up: Mapping[str, float] = field(default_factory=dict)
    copying: bool = False


CONDITIONS = (
    Condition("No loss"),
    Condition("5 % loss each way on the host's link", {"loss": 0.05}),
    Condition("The host's uplink has 20 Mbit/s and 64 kB of queue", up={"rate": LIMITED, "room": 64_000}, copying=True),
    Condition(
        "The host's uplink has 20 Mbit/s and 256 kB of queue", up={"rate": LIMITED, "room": 256_000}, copying=True
    ),
    Condition("No limit but the processors", copying=True),
)

Echoes = Mapping[tuple[str, bool], list[float]]  # milliseconds, by subject and whether a copy ran


def typed(terminal: Terminal, keys: int, chance: Random) -> list[float]:
    taken = []
    for _ in range(keys):
        taken.append(terminal.echo(timeout=30))
        time.sleep(chance.uniform(*PAUSE))
    return taken


@contextmanager
def copy_running(place: Stage, name: str) -> Iterator[None]:
    """A copy from the host to the relay, through the forward of the tunnel that the subject uses."""
    with asked(place.lab.relay, COPY[name], GIVE, EVERYTHING) as peer:
        room = bytearray(1 << 20)

        def read() -> None:
            while peer.recv_into(room):
                pass

        reading = threading.Thread(target=_quietly(read))
        reading.start()
        try:
            time.sleep(GROWN)
            yield
        finally:
            peer.shutdown(2)
            reading.join()
    time.sleep(SETTLE)


def _quietly(read: Callable[[], None]) -> Callable[[], None]:
    def reading() -> None:
        try:
            read()
        except OSError:
            return  # the copy was ended

    return reading


def measure(place: Stage, condition: Condition, size: Size) -> Echoes:
    """The echoes of every subject; with `copying`, each types with and without a copy, in turn."""
    place.lab.home_link.set("both", **condition.link)
    if condition.up:
        place.lab.home_link.set("up", **condition.up)
    chance = Random(1)
    for terminal in place.terminals.values():
        typed(terminal, size.warm_up, chance)
    found: dict[tuple[str, bool], list[float]] = {}
    for number in range(-(-size.keys // size.batch)):
        for name, terminal in rotated(place.terminals, number):
            for copying in (False, True) if condition.copying else (False,):
                with copy_running(place, name) if copying else nullcontext():
                    found.setdefault((name, copying), []).extend(typed(terminal, size.batch, chance))
        progress(f"ingress: {condition.title}: {(number + 1) * size.batch} of {size.keys} keys")
    return found


def table(condition: Condition, echoes: Echoes) -> Table:
    columns = (
        Column("subject"),
        *((Column("copy", "s"), Column("median, x without a copy")) if condition.copying else ()),
        Column("median, x direct"),
        Column("p95, x socat"),
        Column("median - direct, ms", "+.1f"),
        Column("median, ms", ".1f"),
        Column("p95, ms", ".1f"),
        Column("p99, ms", ".1f"),
        Column("keys", "d"),
    )
    rows = []
    for (name, copying), values in sorted(echoes.items(), key=lambda item: (item[0][1], SUBJECTS.index(item[0][0]))):
        direct, socat = median(echoes[DIRECT, copying]), quantile(echoes[SOCAT, copying], 0.95)
        without = ("running" if copying else "no", median(values) / median(echoes[name, False]))
        rows.append(
            (
                name,
                *(without if condition.copying else ()),
                median(values) / direct,
                quantile(values, 0.95) / socat,
                median(values) - direct,
                median(values),
                quantile(values, 0.95),
                quantile(values, 0.99),
                len(values),
            )
        )
    return Table(condition.title, columns, tuple(rows))


def aims(found: Mapping[str, Echoes]) -> Table:
    """What the ingress is meant to reach, and what it reached."""
    rows: list[tuple[Any, ...]] = []
    for condition in CONDITIONS:
        echoes = found[condition.title]
        ours, late = median(echoes[INGRESS, False]), quantile(echoes[INGRESS, False], 0.95)
        if condition.copying:
            rise = median(echoes[INGRESS, True]) / ours
            rows.append((f"{condition.title}: a copy raises the median less than 1.2 x", rise, _met(rise < 1.2)))
        elif condition.link:
            for peer in (SOCAT, SOCAT_SESSION):
                part = late / quantile(echoes[peer, False], 0.95)
                rows.append((f"{condition.title}: p95 at most 0.5 x that of {peer}", part, _met(part <= 0.5)))
        else:
            more = ours - median(echoes[DIRECT, False])
            rows.append((f"{condition.title}: median within 5 ms of direct UDP", more, _met(more <= 5)))
    return Table("Aims", (Column("aim"), Column("measured"), Column("met", "s")), tuple(rows))


def _met(so: bool) -> str:
    return "yes" if so else "NO"


def run(given: Arguments) -> list[Table]:
    found = {}
    for condition in CONDITIONS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, stage(Path(folder)) as place:
            found[condition.title] = measure(place, condition, QUICK if given.quick else FULL)
    return [aims(found), *(table(condition, found[condition.title]) for condition in CONDITIONS)]


def main() -> None:
    given = begin(__doc__ or "")
    emit("ingress", run(given), given)


if __name__ == "__main__":
    main()
