"""Waiting for something that has no event of its own: another program's state, or the kernel's.

Ask with a short pause and a deadline. Where there is an event, a log line or a future, wait for that instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PAUSE = 0.01  # seconds between two questions
SOMETHING = "what this test awaits"


def wait_until(true: Callable[[], object], *, what: str = SOMETHING, timeout: float = 10, every: float = PAUSE) -> None:
    """Return as soon as `true()` holds. It is asked every `every` seconds.

    Raises:
        TimeoutError: it did not hold within `timeout` seconds. The text says `what` was awaited.
    """
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(_sentence(what, timeout))
        time.sleep(every)


async def until(
    true: Callable[[], object],
    *,
    what: str = SOMETHING,
    timeout: float = 10,  # noqa: ASYNC109 - asyncio.timeout cannot say what was awaited
    every: float = PAUSE,
) -> None:
    """The same inside an event loop, whose other tasks go on meanwhile.

    Raises:
        TimeoutError: as `wait_until` does.
    """
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(_sentence(what, timeout))
        await asyncio.sleep(every)


def _sentence(what: str, timeout: float) -> str:
    return f"{what}: not within {timeout:g} s"
