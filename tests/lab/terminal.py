"""A person at a terminal: a program under a real pty. A test types and reads, and each echo is timed.

A thread reads all the time, so that arrival times are exact and the program never waits for the test.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.machine import Machine, end

ROWS, COLUMNS = 50, 200  # large, so that a long measurement neither scrolls nor repaints
ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
CONTROL: Final = re.compile(
    rb"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # OSC, such as a title, up to BEL or ST
    rb"|\x1b\[[0-?]*[ -/]*(?:[@-~]|$)"  # CSI
    rb"|\x1b[ -/]*(?:[0-~]|$)"  # any other escape
    rb"|[\x00-\x09\x0b-\x1f\x7f]"
)


class Terminal:
    """`argv` on `machine` under a pty, in a session of its own as a terminal emulator would start it."""

    def __init__(self, machine: Machine, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> None:
        self._output = bytearray()
        self._arrivals: list[tuple[int, float]] = []  # the output's length after each chunk, and when the chunk came
        self._news = threading.Condition()
        self._ended = False
        self._typed = 0
        self._master, slave = pty.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        # With prediction mosh would show keys before their echo comes, and the measurement would be wrong.
        settings = {"MOSH_PREDICTION_DISPLAY": "never"} | dict(env or {})
        try:
            self.process: subprocess.Popen[bytes] = machine.popen(
                ["setsid", "--ctty", "--", *argv], stdin=slave, stdout=slave, stderr=slave, env=settings
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        self._reader = threading.Thread(target=self._read, name=f"terminal on {machine.name}", daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All output so far, without control sequences."""
        return self.text_since(0)

    def mark(self) -> int:
        """The present end of the output; `text_since` and `wait_for` look at what comes after a mark."""
        with self._news:
            return len(self._output)

    def text_since(self, mark: int) -> str:
        with self._news:
            return _plain(self._output[mark:])

    def arrived(self, mark: int) -> list[tuple[bytes, float]]:
        """Each chunk of output after the mark, and when it came (monotonic, s)."""
        with self._news:
            later = self._arrivals[bisect_right(self._arrivals, mark, key=itemgetter(0)) :]
            starts = [mark, *(length for length, _ in later)]
            return [(bytes(self._output[start:end]), when) for start, (end, when) in zip(starts, later, strict=False)]

    def write(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, *, timeout: float = 20, since: int = 0) -> float:
        """Wait until `text` has been shown after the mark `since`, and return when that was (monotonic, s).

        Raises:
            AssertionError: not within `timeout` seconds, or the program ended; the text is what was shown.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            while text not in _plain(self._output[since:]):
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the program ended" if self._ended else f"not within {timeout:g} s"
                    raise AssertionError(f"{text!r}: {why}; shown: {_plain(self._output[since:])[-2000:]!r}")
                self._news.wait(left)
            return self._arrival_of(text, since)

    def echo(self, *, timeout: float = 10) -> float:
        """Type one character and return the milliseconds until it came back.

        Raises:
            AssertionError: no echo came within `timeout` seconds.
        """
        character = ALPHABET[self._typed % len(ALPHABET)]
        self._typed += 1
        mark = self.mark()
        pressed = time.monotonic()
        self.write(character)
        return (self.wait_for(character, timeout=timeout, since=mark) - pressed) * 1000

    def echoes(self, count: int, *, pace: float = 0.0, timeout: float = 10) -> list[float]:
        """Type `count` characters and return the time of each echo in ms.

        Each is typed when the echo of the one before has come, but not sooner than `pace` seconds after it.
        """
        measured = []
        for _ in range(count):
            due = time.monotonic() + pace
            measured.append(self.echo(timeout=timeout))
            time.sleep(max(0.0, due - time.monotonic()))
        return measured

    def close(self) -> None:
        end(self.process)
        self._reader.join(5)
        os.close(self._master)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _arrival_of(self, text: str, since: int) -> float:
        """When the chunk came that completed `text`; it is usually the last chunk, so the search runs backwards."""
        found = self._arrivals[-1][1]
        for length, arrived in reversed(self._arrivals):
            if length <= since or text not in _plain(self._output[since:length]):
                break
            found = arrived
        return found

    def _read(self) -> None:
        # The pty reports EIO once the last program on it has ended.
        with contextlib.suppress(OSError):
            while chunk := os.read(self._master, 65536):
                arrived = time.monotonic()
                with self._news:
                    self._output += chunk
                    self._arrivals.append((len(self._output), arrived))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def _plain(output: bytes | bytearray) -> str:
    return CONTROL.sub(b"", bytes(output)).decode(errors="replace")
