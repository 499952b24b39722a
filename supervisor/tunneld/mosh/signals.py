"""Signals as something to select on, while a `with` lasts: a child that ended, or somebody who wants us to end."""

from __future__ import annotations

import signal
import socket
from types import TracebackType
from typing import Any, Self

WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """`fd` is readable when a signal came; `take` then calls `came` with the number of each, outside of any handler."""

    def __init__(self, came: Any) -> None:
        self._came = came
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)
        self.fd = self._reader.fileno()

    def take(self) -> None:
        try:
            numbers = self._reader.recv(256)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):
            self._came(number)

    def __enter__(self) -> Self:
        self._waker = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, _nothing) for number in WATCHED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        signal.set_wakeup_fd(self._waker)
        self._reader.close()
        self._writer.close()


def _nothing(number: int, frame: object) -> None:
    """With a handler in Python's own way, the wakeup descriptor is written to."""
