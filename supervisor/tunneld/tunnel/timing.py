"""Time and chance, passed in: tests never sleep, and nothing here reads a clock of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Timing:
    """`clock` in seconds from anywhere, never backwards; `sleep` in the same seconds; `chance` uniform in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = Random().random
