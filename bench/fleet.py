"""How a thousand hosts come back to one relay after a fault that hits all: a simulation with the daemon's own code.

    python -m bench.fleet [--json] [--quick] [--hosts 1000] [--picture FILE]

bench/crowd.py says what is real and what is a model. The same command gives the same figures on any machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.crowd import LOGIN, PROGRAM, Fault, Phase, RelaySize, Return, busiest_second, simulate
from bench.numbers import quantile
from bench.report import Arguments, Cell, Column, Table, emit, parser, progress

FAULTS: Final = (
    Fault(
        "reboot",
        "the relay reboots in 60 s",
        ((0, Phase.CLOSED), (3, Phase.DARK), (57, Phase.CLOSED), (60, Phase.OPEN)),
        told=True,
    ),
    Fault(
        "power",
        "the relay has no power for 60 s",
        ((0, Phase.DARK), (57, Phase.CLOSED), (60, Phase.OPEN)),
    ),
    Fault(
        "uplink",
        "the relay's uplink is cut for 60 s",
        ((0, Phase.DARK), (60, Phase.OPEN)),
        stale=True,
    ),
    Fault(
        "sessions",
        "every session is killed, sshd goes on",
        ((0, Phase.OPEN),),
        told=True,
    ),
)


USUAL: Final = RelaySize("2 cores", 2, 1)
SMALL_DATAGRAM: Final = RelaySize("1 core, a quarter as fast", 1, 1 / 4)


@dataclass(frozen=True, slots=True)
class Wanted(Arguments):
    hosts: int
    picture: Path | None


def table(returns: Sequence[Return]) -> Table:
    columns = ("fault", "relay", "most connections in a second", "connections", "turned away")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            each.fault.title,
            each.size.title,
            busiest_second(each.came),
            len(each.came),
            len(each.refused),
            *(quantile(each.back, part) for part in (0.5, 0.95, 1)),
        )
        for each in returns
    )
    times = ("half are back, s", "95 %, s", "all, s")
    return Table(
        f"{len(returns[0].back)} hosts come back to one relay",
        (*(Column(title, "d") for title in columns), *(Column(title, ".1f") for title in times)),
        rows,
        "Seconds from the moment at which sshd listens and can be reached, with MaxStartups 10:30:100, its default. "
        f"Each host needs {LOGIN:g} s of a processor for its login, and {PROGRAM:g} s for our program on the relay.",
    )


def run(given: Wanted) -> list[Table]:
    returns = []
    for size in (USUAL,) if given.quick else (USUAL, SMALL_DATAGRAM):
        for fault in FAULTS:
            relay = simulate(fault, hosts=given.hosts, cores=size.cores, speed=size.speed)
            returns.append(Return.seen_by(relay, size))
            progress(f"fleet: {fault.name}, {size.title}")
    if given.picture is not None:
        from bench.curve import draw  # matplotlib is an extra

        draw(given.picture, [each for each in returns if each.size is USUAL])
    return [table(returns)]


def wanted(argv: Sequence[str] | None = None) -> Wanted:
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--hosts", type=int, help="(default: 1000; --quick: 100)")
    made.add_argument("--picture", type=Path, metavar="FILE", help="draw the result as well (needs the extra `bench`)")
    given = vars(made.parse_args(argv))
    given["hosts"] = given["hosts"] or (100 if given["quick"] else 1000)
    return Wanted(**given)


def main() -> None:
    given = wanted()
    emit("fleet", run(given), given)


if __name__ == "__main__":
    main()
