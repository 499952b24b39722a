"""Keystroke echo of stock mosh through the ingress, where UDP passes only between client and relay.

    python -m bench.ingress [--json] [--quick]

A real mosh-client and ssh run under a pty, without prediction, with 80 ms from client to host and back. Each condition
starts everything anew. Then the subjects type in turn, a batch each, until each has typed all of its keystrokes.
"""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bench.numbers import median, quantile, rotated
from bench.report import Arguments, Column, Table, begin, emit, progress
from bench.scenery import COPY, DIRECT, INGRESS, SOCAT, SOCAT_SESSION, SUBJECTS, Stage, stage
from bench.target import GIVE
from bench.traffic import asked
from tests.lab.terminal import Terminal

PAUSE = (0.02, 0.12)  # seconds from an echo to the next key, drawn evenly: mosh's timers must not fall into step
SETTLE = 1.0  # seconds after a copy has ended, in which its queues run empty
GROWN = 3.0  # seconds from the start of a copy until its queues are full
LIMITED = 20_000_000  # bits a second of a limited uplink
EVERYTHING = 1 << 40  # bytes: a copy that does not end by itself


@dataclass(frozen=True, slots=True)
class Size:
    """How many keys are typed: for each cell, in a turn, and before anything is measured."""

    keys: int
    batch: int
    warm_up: int


FULL = Size(keys=200, batch=50, warm_up=10)
QUICK = Size(keys=40, batch=40, warm_up=3)


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """Faults of the host's link in both directions; `up` are further faults in the direction of the relay.

    With `copying`, each subject types without a copy and with one, which goes to the relay through its own tunnel.
    """

    title: str
    link: Mapping[str, float] = field(default_factory=dict)
    up: Mapping[str, float] = field(default_factory=dict)
    copying: bool = False

    @property
    def subjects(self) -> tuple[str, ...]:
        # What a session changes about socat shows without a copy as well, and copies take time.
        return tuple(name for name in SUBJECTS if not (self.copying and name == SOCAT_SESSION))


CONDITIONS = (
    Condition("No loss"),
    Condition("5 % loss each way on the host's link", {"loss": 0.05}),
    Condition("Uplink of 20 Mbit/s with 64 kB of queue", up={"rate": LIMITED, "room": 64_000}, copying=True),
    Condition("Uplink of 20 Mbit/s with 256 kB of queue", up={"rate": LIMITED, "room": 256_000}, copying=True),
    Condition("No limit but the processors", copying=True),
)
OF_QUICK = CONDITIONS[:3]


@dataclass(slots=True)
class Cell:
    """One subject, with or without a copy: its echoes in milliseconds, and the copies' bytes and seconds."""

    echoes: list[float] = field(default_factory=list)
    copied: int = 0
    seconds: float = 0.0

    @property
    def median(self) -> float:
        return median(self.echoes)

    @property
    def p95(self) -> float:
        return quantile(self.echoes, 0.95)

    @property
    def rate(self) -> float | None:
        """Mbit/s of the copy while the subject typed."""
        return self.copied * 8 / 1e6 / self.seconds if self.seconds else None


Cells = Mapping[tuple[str, bool], Cell]  # by subject, and whether a copy ran


def typed(terminal: Terminal, keys: int, chance: Random) -> list[float]:
    """The echoes in ms; each key is typed a pause after the echo of the key before."""
    taken = []
    for _ in range(keys):
        taken.append(terminal.echo(timeout=30))
        time.sleep(chance.uniform(*PAUSE))
    return taken


class Copy:
    """A copy from the host to the relay, which goes on until it is closed; `copied` counts its bytes."""

    def __init__(self, peer: socket.socket) -> None:
        self.copied = 0
        self._peer = peer
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        room = bytearray(1 << 20)
        # The copy ends when we close it, which may look like a reset.
        with suppress(OSError):
            while got := self._peer.recv_into(room):
                self.copied += got

    def close(self) -> None:
        self._peer.shutdown(socket.SHUT_RDWR)
        self._reading.join()


@contextmanager
def copy_beside(place: Stage, name: str, cell: Cell) -> Iterator[None]:
    """Copy through the subject's tunnel during the block; the queues are full before it, and empty after it."""
    with asked(place.lab.relay, COPY[name], GIVE, EVERYTHING) as peer, closing(Copy(peer)) as copy:
        time.sleep(GROWN)
        copied, began = copy.copied, time.monotonic()
        yield
        cell.copied += copy.copied - copied
        cell.seconds += time.monotonic() - began
    time.sleep(SETTLE)


def measure(place: Stage, condition: Condition, size: Size) -> Cells:
    """Have the subjects type in turn, a batch each, until each has typed all of its keystrokes."""
    place.lab.home_link.set("both", **condition.link)
    place.lab.home_link.set("up", **condition.up)
    chance = Random(1)
    for terminal in place.terminals.values():
        typed(terminal, size.warm_up, chance)
    found: dict[tuple[str, bool], Cell] = {}
    for number in range(-(-size.keys // size.batch)):
        for name, terminal in rotated(place.terminals, number):
            for copying in (False, True) if condition.copying else (False,):
                cell = found.setdefault((name, copying), Cell())
                with copy_beside(place, name, cell) if copying else nullcontext():
                    cell.echoes += typed(terminal, size.batch, chance)
        progress(f"ingress: {condition.title}: {(number + 1) * size.batch} of {size.keys} keys")
    return found


def table(condition: Condition, cells: Cells) -> Table:
    """What was measured under one condition, absolute and against direct UDP and socat."""
    return Table(
        condition.title,
        (
            Column("subject"),
            *((Column("copy, Mbit/s", ".0f"), Column("median, x without")) if condition.copying else ()),
            Column("median, x direct"),
            Column("p95, x socat"),
            Column("median - direct, ms", "+.1f"),
            Column("median, ms", ".1f"),
            Column("p95, ms", ".1f"),
            Column("p99, ms", ".1f"),
            Column("keys", "d"),
        ),
        tuple(
            (
                name,
                *((cell.rate, cell.median / cells[name, False].median) if condition.copying else ()),
                cell.median / cells[DIRECT, copying].median,
                cell.p95 / cells[SOCAT, copying].p95,
                cell.median - cells[DIRECT, copying].median,
                cell.median,
                cell.p95,
                quantile(cell.echoes, 0.99),
                len(cell.echoes),
            )
            for (name, copying), cell in sorted(cells.items(), key=_place)
        ),
    )


def _place(item: tuple[tuple[str, bool], Cell]) -> tuple[bool, int]:
    (name, copying), _ = item
    return copying, SUBJECTS.index(name)


def aims(found: Mapping[Condition, Cells]) -> Table:
    """What the ingress is meant to reach, and what was measured."""
    rows: list[tuple[str, float, str]] = []
    for condition, cells in found.items():
        ours = cells[INGRESS, False]
        if condition.copying:
            rise = cells[INGRESS, True].median / ours.median
            rows.append((f"{condition.title}: a copy raises the median less than 1.2 x", rise, _met(rise < 1.2)))
        elif condition.link:
            for peer in (SOCAT, SOCAT_SESSION):
                part = ours.p95 / cells[peer, False].p95
                rows.append((f"{condition.title}: p95 at most 0.5 x that of {peer}", part, _met(part <= 0.5)))
        else:
            more = ours.median - cells[DIRECT, False].median
            rows.append((f"{condition.title}: median within 5 ms of direct UDP", more, _met(more <= 5)))
    return Table("Aims", (Column("aim"), Column("measured"), Column("met", "s")), tuple(rows))


def _met(so: bool) -> str:
    return "yes" if so else "NO"


def run(given: Arguments) -> list[Table]:
    found = {}
    for condition in OF_QUICK if given.quick else CONDITIONS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, stage(Path(folder), condition.subjects) as place:
            found[condition] = measure(place, condition, QUICK if given.quick else FULL)
    return [aims(found), *(table(condition, cells) for condition, cells in found.items())]


def main() -> None:
    given = begin(__doc__ or "")
    emit("ingress", run(given), given)


if __name__ == "__main__":
    main()
