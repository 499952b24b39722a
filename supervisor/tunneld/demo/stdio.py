"""A program's standard input and output as bytes that wait for each other, on raw pipes or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

PIECE = 65536  # bytes at a time: what a Linux pipe holds
# Bytes that may wait for a program that does not read, before its sender has to wait, too.
HIGH_WATER = 2 * PIECE


class Input:
    """What is on its way into the program. Owns `descriptor`."""

    def __init__(self, descriptor: int, *, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._finished = self._closed = self._paused = False
        self._pause, self._resume = pause, resume

    def write(self, data: bytes) -> None:
        if not self._closed:
            self._waiting += data
            self._flush()

    def finish(self) -> None:
        """End of file, after what is waiting."""
        self._finished = True
        if not self._closed:
            self._flush()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().remove_writer(self._descriptor)
            os.close(self._descriptor)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                del self._waiting[: os.write(self._descriptor, self._waiting[:PIECE])]
        except BlockingIOError:
            loop.add_writer(self._descriptor, self._flush)
        except OSError:  # the program has closed its input, or its terminal is gone
            self._waiting.clear()
            self.close()
        else:
            loop.remove_writer(self._descriptor)
            if self._finished:
                self.close()
        self._hold(len(self._waiting) > HIGH_WATER)

    def _hold(self, full: bool) -> None:
        if full != self._paused:
            self._paused = full
            (self._pause if full else self._resume)()


class Output:
    """What the program writes. Owns `descriptor`; `ended` is called once, at its end of file."""

    def __init__(self, descriptor: int, *, write: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._write, self._ended = write, ended
        self.closed = False
        self.resume()

    def pause(self) -> None:
        if not self.closed:
            asyncio.get_running_loop().remove_reader(self._descriptor)

    def resume(self) -> None:
        if not self.closed:
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def drain(self) -> None:
        """Pass on what is there now, and no more."""
        while not self.closed and self._read():
            pass

    def close(self) -> None:
        if not self.closed:
            self.pause()
            self.closed = True
            os.close(self._descriptor)
            self._ended()

    def _read(self) -> bool:
        """Pass one piece on; False where none is there."""
        try:
            data = os.read(self._descriptor, PIECE)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last program has left the terminal
            data = b""
        if data:
            self._write(data)
            return True
        self.close()
        return False


def close_all(*descriptors: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
