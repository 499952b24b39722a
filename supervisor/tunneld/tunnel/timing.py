"""Time and chance, passed in: tests never sleep, and no part of a tunnel reads a clock of its own.

It holds no logic. tests/virtual.py stands in for it in the tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Timing:
    """A clock, a sleep that follows this clock, and random numbers."""

    clock: Callable[[], float] = time.monotonic  # seconds from anywhere; never goes back
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep  # for so many seconds of that clock
    chance: Callable[[], float] = Random().random  # drawn evenly from [0, 1)
