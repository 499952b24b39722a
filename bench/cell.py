"""One typist's keys in one condition, and how late each echo was. A typist either types on, or waits for the echo."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from bench.numbers import median, quantile
from tests.lab.terminal import Terminal
from tests.lab.typist import Typist

PACE: Final = (0.1, 0.12)  # seconds from key to key: the least and the most, evenly spread
LOST: Final = 60.0  # seconds: a key without an echo after this time fails its cell
WARM_UP: Final = 30  # keys that are not counted: meanwhile the programs measure the loss


@dataclass(frozen=True, slots=True)
class Cell:
    """One subject's echoes in milliseconds."""

    echoes: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.echoes)

    def part(self, part: float) -> float:
        return quantile(self.echoes, part)


def typed_on(terminal: Terminal, keys: int, chance: Random) -> list[float]:
    """Milliseconds from each key to its echo. The typist does not wait for echoes.

    Raises:
        AssertionError: a key was lost.
    """
    typist = Typist(terminal, lambda: chance.uniform(*PACE))
    typist.type(WARM_UP + keys)
    return [1000 * late for late in typist.finish(timeout=LOST)][WARM_UP:]


def waited(terminal: Terminal, keys: int, chance: Random) -> list[float]:
    """The same for a typist who reads along, and presses no key before the echo of the last key.

    Raises:
        AssertionError: a key was lost.
    """
    taken = []
    for _ in range(WARM_UP + keys):
        due = time.monotonic() + chance.uniform(*PACE)
        taken.append(terminal.echo(timeout=LOST))
        time.sleep(max(0.0, due - time.monotonic()))
    return taken[WARM_UP:]
