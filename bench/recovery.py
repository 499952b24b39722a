"""Seconds from the end of a fault until the forwarded port answers again: tunneld compared with what people use.

    python -m bench.recovery [--json] [--quick] [--faults kill,power] [--contenders tunneld] [--picture FILE]

Each run has a lab of its own: a real sshd, a round trip of 40 ms, and one contender. Its tunnel is up for a while, and
then the fault comes, at a random moment. After the fault, the bench connects through the forward on the relay itself.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from bench.banner import seconds_until_banner
from bench.contenders import AUTOSSH, CONTENDERS, OURS, PORT
from bench.faults import FAULTS, Fault, Place
from bench.listening import listener
from bench.numbers import median
from bench.report import Arguments, Cell, Column, Table, emit, parser, progress
from bench.tunnels import has
from tests.lab.client import person
from tests.lab.machine import end
from tests.lab.net import Lab
from tests.lab.sshd import Sshd

ONE_WAY: Final = 0.02  # seconds, on the host's link
START_LIMIT: Final = 30.0  # seconds within which a tunnel must be up, as long as there is no fault
GIVEN_UP_AFTER: Final = 150.0  # seconds: a contender that is not back by then counts as gone
PHASE: Final = 10.0  # seconds: so the fault comes at any moment between two keepalives, on either side
# Seconds that a session is up before the fault. After a session that lasted `stable_after`, as most do in real life,
# tunneld redials at once. For the others, the age of a session makes no difference here.
AGE: Final = {OURS: 31.0}
AGE_OF_OTHERS: Final = 3.0
# Tunnels at the same time. They mostly wait. But ours are measured in tenths of a second, on the same processors.
SIDE_BY_SIDE: Final = {OURS: 5}
SIDE_BY_SIDE_OF_OTHERS: Final = 20


@dataclass(frozen=True, slots=True)
class Wanted(Arguments):
    """`logs` is a folder for the logs of contenders and relay in each run, and for the times of the fault."""

    faults: Sequence[Fault]
    contenders: Sequence[str]
    rounds: int
    picture: Path | None
    logs: Path | None


@dataclass(frozen=True, slots=True)
class Run:
    fault: Fault
    contender: str
    number: int


Found = Mapping[tuple[Fault, str], list[float]]  # seconds; inf for a run in which the contender did not come back


@contextmanager
def place_for(folder: Path, run: Run) -> Iterator[Place]:
    """A lab in which the contender's tunnel is up."""
    with Lab(folder) as lab:
        lab.home_link.set(delay=ONE_WAY)
        keeper = person(lab.pi, "keeper")
        options = {
            "ClientAliveInterval": str(run.fault.client_alive),
            "ClientAliveCountMax": "3",
            # The relays of all runs have the same file system, and would share the records that tunneld keeps there.
            "SetEnv": f"XDG_STATE_HOME={lab.relay.directory / 'state'}",
        }
        with Sshd(lab.relay, (keeper.key.public,), options) as relay, Sshd(lab.pi, ()):
            keeper.trust(relay.known_hosts("relay"))
            start = CONTENDERS[run.contender]
            place = Place(lab, relay, lambda: start(keeper, run.fault.keepalive), start(keeper, run.fault.keepalive))
            try:
                if seconds_until_banner(lab.relay, PORT, since=time.monotonic(), patience=START_LIMIT) is None:
                    said = "".join(path.read_text() for path in _logs(place))
                    raise TimeoutError(f"{run.contender} had no tunnel after {START_LIMIT:g} s:\n{said}")
                yield place
            finally:
                end(place.process)


def measure(run: Run, *, quick: bool, logs: Path | None) -> float:
    """Seconds until the port answers; inf if it does not within GIVEN_UP_AFTER seconds."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, place_for(Path(folder), run) as place:
        chance = Random(f"{run.fault.name} {run.number}")  # the same moment for each contender
        time.sleep(1 if quick else AGE.get(run.contender, AGE_OF_OTHERS) + chance.uniform(0, PHASE))
        stale = listener(place.lab.relay, PORT) if run.fault.lost else None
        began = datetime.now(UTC)
        run.fault.strike(place)
        since, ended = time.monotonic(), datetime.now(UTC)
        taken = seconds_until_banner(place.lab.relay, PORT, since=since, patience=GIVEN_UP_AFTER, stale=stale)
        if logs is not None:
            _keep(place, logs / f"{run.fault.name}-{run.contender}-{run.number}", began, ended, taken)
    progress(f"recovery: {run.fault.name}, {run.contender}, run {run.number + 1}: {_shown(taken or math.inf)}")
    return taken or math.inf


def _keep(place: Place, folder: Path, began: datetime, ended: datetime, taken: float | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in _logs(place):
        shutil.copy(path, folder)
    (folder / "fault").write_text(f"began {began}\nended {ended}\nback after {taken} s\n")


def _logs(place: Place) -> list[Path]:
    return [*place.lab.pi.directory.glob("*.log"), place.relay.directory / "log"]


def measure_all(given: Wanted) -> Found:
    """Measure ours first, few at the same time, then the others."""
    runs = [
        Run(fault, contender, number)
        for number in range(given.rounds)
        for fault in given.faults
        for contender in given.contenders
    ]
    found: dict[tuple[Fault, str], list[float]] = {(run.fault, run.contender): [] for run in runs}

    def measured(run: Run) -> float:
        return measure(run, quick=given.quick, logs=given.logs)

    for workers, belong in _shifts():
        shift = [run for run in runs if belong(run.contender)]
        with ThreadPoolExecutor(workers) as pool:
            for run, taken in zip(shift, pool.map(measured, shift), strict=True):
                found[run.fault, run.contender].append(taken)
    return found


def _shifts() -> Iterator[tuple[int, Callable[[str], bool]]]:
    for name, workers in SIDE_BY_SIDE.items():
        yield workers, name.__eq__
    yield SIDE_BY_SIDE_OF_OTHERS, lambda name: name not in SIDE_BY_SIDE


def summary(found: Found) -> Table:
    contenders = list(dict.fromkeys(contender for _, contender in found))
    faults = list(dict.fromkeys(fault for fault, _ in found))
    rows: list[tuple[Cell, ...]] = []
    for fault in faults:
        middles = {contender: median(found[fault, contender]) for contender in contenders}
        met = "-" if OURS not in middles else "yes" if middles[OURS] <= fault.aim else "NO"
        rows.append((fault.title, *map(_shown, middles.values()), _shown(fault.aim), met))
    return Table(
        "Seconds from the fault's end until the forwarded port answers",
        (Column("fault"), *map(Column, contenders), Column("aim"), Column("met")),
        tuple(rows),
        f"The median. A contender that was not back after {GIVEN_UP_AFTER:g} s is shown as > {GIVEN_UP_AFTER:g}.",
    )


def every_run(found: Found) -> Table:
    rows = tuple(
        (fault.name, contender, _shown(min(taken)), _shown(max(taken)), " ".join(map(_shown, taken)))
        for (fault, contender), taken in found.items()
    )
    columns = (Column("fault"), Column("contender"), Column("least"), Column("most"), Column("each run, s"))
    return Table("Every run", columns, rows)


def _shown(seconds: float) -> str:
    if seconds == math.inf:
        return f"> {GIVEN_UP_AFTER:g}"
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.0f}"


def run(given: Wanted) -> list[Table]:
    found = measure_all(given)
    if given.picture is not None:
        from bench.picture import draw  # matplotlib is an extra

        draw(given.picture, found, patience=GIVEN_UP_AFTER)
    return [summary(found), every_run(found)]


def wanted(argv: Sequence[str] | None = None) -> Wanted:
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    able = [name for name in CONTENDERS if name != AUTOSSH or has(AUTOSSH)]
    made.add_argument(
        "--faults", type=_some_of([fault.name for fault in FAULTS]), help="their names, separated by commas"
    )
    made.add_argument("--contenders", type=_some_of(able), default=able, help="their names, separated by commas")
    made.add_argument("--rounds", type=int, help="runs of each (default: 5; --quick: 1)")
    made.add_argument("--picture", type=Path, metavar="FILE", help="draw the result as well (needs the extra `bench`)")
    made.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the logs of each run in this folder")
    given = vars(made.parse_args(argv))
    given["faults"] = [fault for fault in FAULTS if given["faults"] is None or fault.name in given["faults"]]
    given["rounds"] = given["rounds"] or (1 if given["quick"] else 5)
    return Wanted(**given)


def _some_of(known: Sequence[str]) -> Callable[[str], Sequence[str]]:
    def read(text: str) -> Sequence[str]:
        listed = text.split(",")
        unknown = ", ".join(sorted(set(listed) - set(known)))
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown}: not among {', '.join(known)}")
        return listed

    return read


def main() -> None:
    given = wanted()
    emit("recovery", run(given), given)


if __name__ == "__main__":
    main()
