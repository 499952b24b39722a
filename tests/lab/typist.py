"""A typist who types at a steady pace and does not wait for echoes, so that a fault delays every key that it meets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.screen import Screen
from tests.lab.terminal import ALPHABET, Terminal

PACE = 0.12  # seconds between keys: a quick typist


@dataclass(slots=True)
class Typist:
    """Types the alphabet, again and again, and finds when each key's echo was shown.

    `pressed`: when each key was pressed (monotonic, s). `pace`: gives the seconds until the next key.

    An echo counts only in its own cell of the screen, since mosh also draws other things: what changed, a row's last
    letter again where a line wraps, and a banner when the server does not answer.
    """

    terminal: Terminal
    pace: Callable[[], float] = lambda: PACE
    pressed: list[float] = field(default_factory=list)
    _echoed: list[float] = field(default_factory=list)
    _screen: Screen = field(default_factory=Screen)
    _seen: int = 0  # bytes of the terminal's output that are on the screen
    _before: int = 0  # characters that had been put there when the first key was pressed
    _first: int | None = None  # the first key's cell
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def type(self, keys: int | None = None) -> None:
        """Type `keys` more keys; with None, type until `stop`."""
        self.echoed()
        if not self.pressed:
            self._before = self._screen.put
        last = None if keys is None else len(self.pressed) + keys
        due = time.monotonic()
        while len(self.pressed) != last and not self._stop.wait(max(0.0, due - time.monotonic())):
            self.pressed.append(time.monotonic())
            self.terminal.write(_key(len(self.pressed) - 1))
            due += self.pace()
            self.echoed()  # read little by little: to read all at the end would disturb other typists

    def stop(self) -> None:
        self._stop.set()

    def echoed(self) -> list[float]:
        """When each key's echo was first shown, in the order of the keys; the last echoes may still be missing."""
        with self._looking:
            for chunk, when in self.terminal.arrived(self._seen):
                self._seen += len(chunk)
                self._show(chunk, when)
            return self._echoed.copy()

    def finish(self, *, timeout: float = 30) -> list[float]:
        """Stop, wait for the last echo, and return the seconds from each key to its echo.

        Raises:
            AssertionError: a key was not back within `timeout` seconds.
        """
        self.stop()
        while len(found := self.echoed()) < len(self.pressed) and time.monotonic() < self.pressed[-1] + timeout:
            time.sleep(0.05)
        late = [echo - press for echo, press in zip(found, self.pressed, strict=False)]
        lost = len(self.pressed) - sum(each <= timeout for each in late)
        if lost:
            rest = bytes(self._screen.cells[(self._first or 0) + len(found) :])
            raise AssertionError(
                f"{lost} of {len(self.pressed)} keys were not back within {timeout:g} s; "
                f"where the next one ({_key(len(found))!r}) belongs: {rest[:60]!r}"
            )
        return late

    def _show(self, chunk: bytes, when: float) -> None:
        cursor = self._screen.place
        self._screen.feed(chunk)
        if self._first is None and self.pressed and self._screen.put > self._before:
            self._first = cursor  # where the first echo starts; at the first key the prompt may not have been complete
        while (
            self._first is not None
            and len(self._echoed) < len(self.pressed)
            and self._screen.cells[self._first + len(self._echoed)] == ord(_key(len(self._echoed)))
        ):
            self._echoed.append(when)


def _key(number: int) -> str:
    return ALPHABET[number % len(ALPHABET)]


@contextmanager
def typing(terminal: Terminal, *, pace: float = PACE) -> Iterator[Typist]:
    """A typist types in a thread until the end of the block."""
    typist = Typist(terminal, lambda: pace)
    thread = threading.Thread(target=typist.type, name="typist")
    thread.start()
    try:
        yield typist
    finally:
        typist.stop()
        thread.join()
