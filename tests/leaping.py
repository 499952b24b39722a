"""An event loop whose clock jumps to the next timer as soon as no task can run: a test of minutes takes no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Leaping(asyncio.SelectorEventLoop):
    """Its `time()` starts at 0, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_ClockMovingSelector(self))

    def time(self) -> float:
        return self.now


class _ClockMovingSelector(selectors.DefaultSelector):
    """Never waits for a descriptor. Where a selector would wait, it moves the clock of its loop forward."""

    def __init__(self, loop: Leaping) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left to wait for"
            self._loop.now += timeout
        return ready


def run(main: Coroutine[Any, Any, T], loop: Leaping) -> T:
    """Run `main` to its end as asyncio.run does, on `loop`."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
