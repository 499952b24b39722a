"""Signals that end the demo."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any


class Interruption:
    """The first SIGINT, SIGTERM or SIGHUP cancels the task that called `start`, and is `signal` then.

    Further ones change nothing: what was begun is cleared away in any case, and that takes a second or two.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Interruption:
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for each, before in self._before.items():
            if before is not signal.SIG_IGN:  # as under nohup
                signal.signal(each, self._asked)
        return self

    def __exit__(self, *_: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)

    def start(self) -> None:
        """
        Raises:
            CancelledError: a signal came before.
        """
        self._task = asyncio.current_task()
        if self.signal:
            raise asyncio.CancelledError

    def _asked(self, number: int, _: FrameType | None) -> None:
        if not self.signal:
            self.signal = number
            if self._task is not None and not self._task.done():
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
