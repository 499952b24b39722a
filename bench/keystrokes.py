"""Keystroke echo of `tunneld mosh`, beside mosh over a port forwarded by hand and beside ssh, in the same run.

    python -m bench.keystrokes [--json] [--quick] [--keys N] [--parts clean,loss5,prompt,moments] [--picture FILE]

Real mosh-client and ssh run under a pty, without prediction, with 80 ms from laptop to host and back. Each condition
starts everything anew. Then all subjects type at the same time over the same links, 9 keys a second: first each waits
for an echo before it presses the next key, then each types on, whatever comes back. A subject that waits presses no key
while an echo is missing, and so leaves out the keys that would have been late as well (coordinated omission). So the
aims are judged in both manners. Eternal Terminal would be another peer, but Debian has no package of it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from bench.cell import Cell, typed_on, waited
from bench.homes import CONDITIONS, DIRECT, OURS, SSH, Condition, between_homes, faults, homes
from bench.moments import Moment, comes_back, path_dies, roams
from bench.numbers import median
from bench.prompt import BY_JUMP, BY_MAPPING, MOSH, WAYS, Prompts, map_ports, prompts
from bench.report import Arguments, Column, Table, emit, parser, progress
from bench.report import Cell as Shown
from tests.lab.terminal import Terminal

PROMPT, MOMENTS, UPGRADE = "prompt", "moments", "upgrade"
PARTS: Final = (*(condition.name for condition in CONDITIONS), PROMPT, MOMENTS, UPGRADE)
CLEAN: Final = CONDITIONS[0]
UPGRADES: Final = 7

Typing = Callable[[Terminal, int, Random], list[float]]  # type so many keys; how late each echo was, in ms


@dataclass(frozen=True, slots=True)
class Wanted(Arguments):
    parts: Sequence[str]
    keys: int  # of each subject in each condition, in either manner
    rounds: int  # of starts of each program to its prompt
    picture: Path | None


Cells = Mapping[str, Cell | None]  # by subject; None where a key was lost


@dataclass(frozen=True, slots=True)
class Typed:
    """What a condition's subjects saw as they `waited` for echoes and as they typed `on`.

    `used` is the kind of path that tunneld mosh had in use before the first key.
    """

    waited: Cells
    on: Cells
    used: str


@dataclass(slots=True)
class Found:
    typed: dict[Condition, Typed] = field(default_factory=dict)
    prompts: Prompts = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)  # seconds until UDP is used again
    direct: dict[str, list[float]] = field(default_factory=dict)  # seconds from start to a direct path, by the way
    failed: dict[str, str] = field(default_factory=dict)  # by part, why


def measure(types: Typing, terminals: Mapping[str, Terminal], keys: int, failed: dict[str, str], part: str) -> Cells:
    """All subjects type at the same time. A subject fails when a key of its gets lost, or its program ends."""

    def cell(name: str) -> Cell | None:
        try:
            return Cell(types(terminals[name], keys, Random(name)))
        except (AssertionError, OSError) as error:
            failed[f"{part}, {name}"] = _first_line(error)
            return None

    with ThreadPoolExecutor(len(terminals)) as pool:
        return dict(zip(terminals, pool.map(cell, terminals), strict=True))


def upgrade(folder: Path, found: Found) -> None:
    """Measure from the start of the program until its datagrams take a direct path instead of the stream."""
    with between_homes(folder, CLEAN) as home:
        map_ports(home)
        for way, name in {BY_MAPPING: "pi-mapped", BY_JUMP: "pi-home"}.items():
            for _ in range(UPGRADES):
                began = time.monotonic()
                with home.mosh(name):
                    seen = home.wait_direct()
                    taken = time.monotonic() - seen["in_use"]["since"] - began
                    found.direct.setdefault(way, []).append(taken)


def moments(folder: Path, found: Found) -> None:
    """Measure what single faults cost."""
    with between_homes(folder, CLEAN) as home:
        found.moments += path_dies(home)
        found.returns.append(comes_back(home))
        found.moments += roams(home)


def part(name: str, given: Wanted, folder: Path, found: Found) -> None:
    """Measure one of PARTS, and write it into `found`."""
    if name == PROMPT:
        with between_homes(folder, CLEAN) as home:
            found.prompts = prompts(home, given.rounds)
    elif name == MOMENTS:
        moments(folder, found)
    elif name == UPGRADE:
        upgrade(folder, found)
    else:
        condition = next(each for each in CONDITIONS if each.name == name)
        with homes(folder, condition) as place, faults(place.home.lab.laptop_link, condition):
            waits, on = (
                measure(types, place.terminals, given.keys, found.failed, name) for types in (waited, typed_on)
            )
            found.typed[condition] = Typed(waits, on, place.used)


def measure_all(given: Wanted) -> Found:
    """Measure one part after the other. The report names a part that breaks; the others are still measured."""
    found = Found()
    for name in given.parts:
        progress(f"keystrokes: {name}")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                part(name, given, Path(folder), found)
            except (AssertionError, TimeoutError) as error:
                found.failed[name] = _first_line(error)
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]


# Aims


def aims(found: Found) -> Table:
    rows = [*_of_conditions(found.typed), *_of_starts(found), *_of_moments(found)]
    shown = tuple((*row, _met(row)) for row in rows)
    broken = "; ".join(f"{name} failed: {why}" for name, why in found.failed.items())
    return Table("Aims", (Column("aim"), Column("measured"), Column("at most"), Column("met", "s")), shown, broken)


def _met(row: Row) -> str:
    _, measured, bound = row
    return "yes" if measured is not None and measured <= bound else "NO"


# The aim; what was measured, or None where it could not be; the most that is allowed.
Row = tuple[str, float | None, float]

# By condition: a quantile of the echoes, the peer, and how many times the peer's quantile ours may be at most.
RATIOS: Final[Mapping[str, Sequence[tuple[float, str, float]]]] = {
    "loss5": ((0.95, DIRECT, 0.8), (0.99, DIRECT, 0.5)),
    "loss15": ((0.95, DIRECT, 0.5), (0.99, DIRECT, 0.4)),
    "bursts": ((0.95, DIRECT, 1.0), (0.99, DIRECT, 1.0)),
    "symmetric": ((0.95, DIRECT, 1.2),),
    "blocked": ((0.95, SSH, 0.5),),
}


def _of_conditions(typed_in: Mapping[Condition, Typed]) -> Iterator[Row]:
    for condition, seen in typed_in.items():
        yield from _of_cells(condition, seen.waited, condition.title)
        yield from _of_cells(condition, seen.on, f"{condition.title}, typing on")


def _of_cells(condition: Condition, cells: Cells, title: str) -> Iterator[Row]:
    ours, direct = cells[OURS], cells.get(DIRECT)
    if condition is CLEAN:
        more = ours.median - direct.median if ours and direct else None
        yield f"{title}: median, ms more than {DIRECT}", more, 3.0
    for share, peer, times in RATIOS.get(condition.name, ()):
        theirs = cells[peer]
        measured = ours.part(share) / theirs.part(share) if ours and theirs else None
        yield f"{title}: p{share * 100:.0f}, times that of {peer}", measured, times


def _of_starts(found: Found) -> Iterator[Row]:
    for way, seconds in found.direct.items():
        yield f"start to direct path by {way}, s", median(seconds), 2.0
    for way in WAYS if found.prompts else ():
        times = median(found.prompts[way, OURS]) / median(found.prompts[way, MOSH])
        yield f"first prompt by {way}, times that of {MOSH}", times, 1.0


def _of_moments(found: Found) -> Iterator[Row]:
    for moment in found.moments:
        if moment.who == OURS:
            yield f"{moment.title}: keys lost", moment.lost, 0
            if "dies" in moment.title:
                yield f"{moment.title}: latest echo, s", moment.latest, 1.5
            else:
                yield f"{moment.title}: echo back, s", moment.back, 2.0
    for seconds in found.returns:
        yield "UDP comes back: used again, s", seconds, 60.0


# Tables


def distributions(found: Found) -> list[Table]:
    return [
        _distribution(
            "each waits for it before the next key", {each: seen.waited for each, seen in found.typed.items()}, found
        ),
        _distribution("typing on, whatever comes back", {each: seen.on for each, seen in found.typed.items()}, found),
    ]


def _distribution(how: str, cells: Mapping[Condition, Cells], found: Found) -> Table:
    columns = (
        Column("condition"),
        Column("subject"),
        *(Column(f"{share}, ms", ".0f") for share in ("median", "mean", "p90", "p95", "p99", "max")),
        Column("keys", "d"),
        Column("used", "s"),
    )
    rows: tuple[tuple[Shown, ...], ...] = tuple(
        (
            condition.title,
            name,
            *(_figures(cell) if cell else (None,) * 6),
            len(cell.echoes) if cell else 0,
            found.typed[condition].used if name == OURS else "-",
        )
        for condition, seen in cells.items()
        for name, cell in seen.items()
    )
    return Table(f"From a key to its echo; {how}", columns, rows)


def _figures(cell: Cell) -> tuple[float, ...]:
    mean = math.fsum(cell.echoes) / len(cell.echoes)
    return cell.median, mean, *(cell.part(share) for share in (0.9, 0.95, 0.99, 1.0))


def starts(found: Found) -> Table:
    rows = tuple(
        (way, who, median(taken), min(taken), max(taken), len(taken)) for (way, who), taken in found.prompts.items()
    )
    columns = (Column("way"), Column("subject"), Column("median, s"), Column("least"), Column("most"), Column("n", "d"))
    return Table("From the start to the first prompt", columns, rows)


def faults_seen(found: Found) -> Table:
    columns = ("fault", "subject", "echo back, s", "latest echo, s", "keys", "lost", "used then")
    forms = ("s", "s", ".2f", ".2f", "d", "d", "s")
    rows = tuple(
        (each.title, each.who, each.back, each.latest, each.keys, each.lost, each.after) for each in found.moments
    )
    return Table("Typing through a fault", tuple(map(Column, columns, forms)), rows)


def run(given: Wanted) -> list[Table]:
    found = measure_all(given)
    if given.picture is not None:
        from bench.echoes import draw  # matplotlib is an extra

        whole = {each: {who: cell for who, cell in seen.waited.items() if cell} for each, seen in found.typed.items()}
        draw(given.picture, whole)
    tables = (aims(found), *distributions(found), starts(found), faults_seen(found))
    return [table for table in tables if table.rows or table.note]


def wanted(argv: Sequence[str] | None = None) -> Wanted:
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--parts", type=_parts, default=PARTS, help=f"of {', '.join(PARTS)}; with commas")
    made.add_argument(
        "--keys", type=int, help="of each subject in each condition, in either manner (default: 1000; --quick: 60)"
    )
    made.add_argument("--rounds", type=int, help="starts of each program to its prompt (default: 11; --quick: 3)")
    made.add_argument("--picture", type=Path, metavar="FILE", help="draw the echoes as well (needs the extra `bench`)")
    given = vars(made.parse_args(argv))
    given["keys"] = given["keys"] or (60 if given["quick"] else 1000)
    given["rounds"] = given["rounds"] or (3 if given["quick"] else 11)
    return Wanted(**given)


def _parts(text: str) -> Sequence[str]:
    unknown = ", ".join(sorted(set(text.split(",")) - set(PARTS)))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown}: not among {', '.join(PARTS)}")
    return [name for name in PARTS if name in text.split(",")]


def main() -> None:
    given = wanted()
    emit("keystrokes", run(given), given)


if __name__ == "__main__":
    main()
