"""Signals that end the demo."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any


class Interruption:
    """The first SIGINT, SIGTERM or SIGHUP cancels the task that has called `start`; `signal` is its number then.

    More signals change nothing: the demo must clear away what it has begun, and that takes a second or two.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> Interruption:
        self._before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for each, before in self._before.items():
            if before is not signal.SIG_IGN:  # nohup(1) has the signal ignored
                signal.signal(each, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for each, before in self._before.items():
            signal.signal(each, before)

    def start(self) -> None:
        """Have a signal cancel the current task.

        Raises:
            CancelledError: a signal has already come.
        """
        self._task = asyncio.current_task()
        if self.signal:
            raise asyncio.CancelledError

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self.signal:
            self.signal = number
            if self._task is not None and not self._task.done():
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
