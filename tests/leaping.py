"""An event loop whose clock leaps to the next timer when nothing else is left to do: minutes pass in no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Leaping(asyncio.SelectorEventLoop):
    """`time()` begins at 0."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self.now


class _Impatient(selectors.DefaultSelector):
    """Waits for no descriptor: the clock of its loop moves instead."""

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
    """As asyncio.run, on that loop."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
