"""Signals as something to select on, while a `with` lasts: a child that ended, or somebody who wants us to end."""

from __future__ import annotations

import signal
import socket
from types import TracebackType
from typing import Self

WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SIGNALLED = 128
"""A shell's exit status for a program that a signal ended: this much more than the signal's number."""


class Signals:
    """`fd` is readable when a signal came; `take` then gives the number of each."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)
        self.fd = self._reader.fileno()

    def take(self) -> list[int]:
        try:
            return list(dict.fromkeys(self._reader.recv(256)))
        except BlockingIOError:
            return []

    def status(self) -> int | None:
        """A shell's exit status for one who ends now because of a signal; None where nobody wants us to end."""
        return next((SIGNALLED + number for number in self.take() if number != signal.SIGCHLD), None)

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
