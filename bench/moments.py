"""What single faults cost somebody who types on: the seconds until echoes are back, and the latest echo."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.homes import DIRECT, OURS, kind_of, settled, terminal
from tests.lab.homeward import Homeward
from tests.lab.moves import allow_udp, forbid_udp, go_away, go_home, new_outside_address, wire_laptop_to_home
from tests.lab.typist import typing

BEFORE: Final = 2.0  # seconds of typing before the fault
AFTER: Final = 8.0  # and after
RETURN_LIMIT: Final = 60.0  # seconds within which UDP must be used again


@dataclass(frozen=True, slots=True)
class Moment:
    """`back`: seconds from the fault to the first echo of a key that was pressed after it.

    `latest`: seconds that the latest echo took, of all keys. `lost`: how many keys were never echoed. `after`: the kind
    of path in use at the end; "-" for programs that have none.
    """

    title: str
    who: str
    back: float
    latest: float
    keys: int
    lost: int
    after: str


def moment(home: Homeward, who: str, title: str, fault: Callable[[], None]) -> Moment:
    """Type for BEFORE seconds, cause the fault, and type on for AFTER seconds."""
    with terminal(home, who) as person:
        if who == OURS:
            settled(home, "direct")
        with typing(person) as typist:
            time.sleep(BEFORE)
            fault()
            struck = time.monotonic()
            time.sleep(AFTER)
        try:
            late = typist.finish(timeout=20)
        except AssertionError:
            late = [echo - press for echo, press in zip(typist.echoed(), typist.pressed, strict=False)]
        seen = home.snapshot() if who == OURS else None
    returned = [press + took for press, took in zip(typist.pressed, late, strict=False) if press > struck]
    return Moment(
        title,
        who,
        min(returned, default=struck + RETURN_LIMIT) - struck,
        max(late),
        len(typist.pressed),
        len(typist.pressed) - len(late),
        kind_of(seen) if seen else "-",
    )


def path_dies(home: Homeward) -> list[Moment]:
    """UDP stops passing between the two homes, though it still reaches the relay; then it stops everywhere."""
    found = []
    for where, title in (("between homes", "the direct path dies"), ("everywhere", "all UDP dies")):
        found.append(moment(home, OURS, title, lambda where=where: forbid_udp(home.lab, where)))  # type: ignore[misc]
        allow_udp(home.lab)
    return found


def roams(home: Homeward) -> list[Moment]:
    """The laptop's router gets a new address, which the laptop cannot see; then the laptop moves, which it can."""
    found = []
    for number, who in enumerate((DIRECT, OURS)):
        new = f"60.2.2.{10 + number}"
        found.append(moment(home, who, "the laptop's router gets a new address", lambda new=new: _renumber(home, new)))  # type: ignore[misc]
    wire_laptop_to_home(home.lab)
    found.append(moment(home, OURS, "the laptop moves to pi's network", lambda: go_home(home.lab)))
    found.append(moment(home, OURS, "and away again", lambda: go_away(home.lab)))
    return found


def _renumber(home: Homeward, address: str) -> None:
    new_outside_address(home.lab, "lapgw", address)


def comes_back(home: Homeward) -> float:
    """Seconds from the end of a time without UDP until a direct path is in use again.

    Raises:
        AssertionError: it was not in use within RETURN_LIMIT.
    """
    with terminal(home, OURS):
        settled(home, "direct")
        forbid_udp(home.lab, "everywhere")
        home.wait_stream()
        allow_udp(home.lab)
        began = time.monotonic()
        home.wait_direct(timeout=RETURN_LIMIT)
        return time.monotonic() - began
