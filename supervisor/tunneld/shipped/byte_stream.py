"""A byte stream as a selector loop drives it: two file descriptors, of which neither may block.

What the bytes mean, and what happens when the stream ends, is its loop's concern (ingress_agent.py, pair_loop.py).
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable

PIECE_READ = 65536
"""Bytes to read at once: as many as a pipe of Linux holds (pipe(7))."""


class ByteStream:
    """Reads from `source` and writes to `sink`, which may be the same file descriptor.

    `keeper`, a third one, is the connection through which another process passed the two on. It is closed with them,
    and its end tells that process to leave.
    """

    def __init__(self, name: str, fds: tuple[int, int], keeper: int | None = None) -> None:
        self.name = name
        self.source, self.sink = fds
        self.unwritten = b""
        self._keeper = keeper
        self._is_waiting = False
        for fd in fds:
            os.set_blocking(fd, False)

    def watch(self, selector: selectors.BaseSelector, readable: Callable[[], None]) -> None:
        """Have the selector call `readable` when there is something to read. Keys of the selector hold a function that
        takes the mask of events."""
        self._selector = selector
        self._ready: Callable[[int], None] = lambda mask: readable() if mask & selectors.EVENT_READ else None
        selector.register(self.source, selectors.EVENT_READ, self._ready)

    def read(self) -> bytes | None:
        """What has come: nothing at the end of the stream, None while there is nothing new.

        Raises:
            OSError: the stream is broken.
        """
        try:
            return os.read(self.source, PIECE_READ)
        except BlockingIOError:
            return None

    def write(self, more: Callable[[], bytes]) -> None:
        """Write what is still unwritten, then what `more` gives, until it gives nothing or the sink takes nothing. In
        that case the selector wakes up when the sink takes something again.

        Raises:
            OSError: the stream is broken.
        """
        try:
            while data := self.unwritten or more():
                self.unwritten = data
                self.unwritten = data[os.write(self.sink, data) :]
        except BlockingIOError:
            pass
        if bool(self.unwritten) != self._is_waiting:
            self._is_waiting = not self._is_waiting
            self._await_writing()

    def close(self) -> None:
        """Take it out of the selector, and close its file descriptors."""
        self._selector.unregister(self.source)
        if self._is_waiting and self.sink != self.source:
            self._selector.unregister(self.sink)
        for fd in {self.source, self.sink}:
            os.close(fd)
        if self._keeper is not None:
            os.close(self._keeper)

    def _await_writing(self) -> None:
        if self.sink == self.source:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._is_waiting else 0)
            self._selector.modify(self.source, events, self._ready)
        elif self._is_waiting:
            self._selector.register(self.sink, selectors.EVENT_WRITE, self._ready)
        else:
            self._selector.unregister(self.sink)
