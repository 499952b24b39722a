"""Signals as something to select on, for as long as a `with` block lasts: a child has ended, or we are told to end."""

from __future__ import annotations

import signal
import socket
from types import TracebackType
from typing import Self

WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

SIGNALLED = 128
"""A shell's exit status for a program that a signal has ended is the signal's number and this."""


class Signals:
    """`fd` is readable when a signal has come; `take` then gives the number of each."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        for each in (self._reader, self._writer):
            each.setblocking(False)
        self.fd = self._reader.fileno()

    def take(self) -> list[int]:
        """The numbers of the signals that came since the last call, each once."""
        try:
            return list(dict.fromkeys(self._reader.recv(256)))
        except BlockingIOError:
            return []

    def status(self) -> int | None:
        """Take what came; the exit status for ending now because of it, or None where only children have ended."""
        return next((SIGNALLED + number for number in self.take() if number != signal.SIGCHLD), None)

    def __enter__(self) -> Self:
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former = {number: signal.signal(number, _nothing) for number in WATCHED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        signal.set_wakeup_fd(self._former_fd)
        self._reader.close()
        self._writer.close()


def _nothing(number: int, frame: object) -> None:
    """Python writes a signal's number to the wakeup descriptor only where the signal has a Python function."""
