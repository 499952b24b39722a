"""Somebody who types on at his own pace, whatever comes back: what a fault costs is seen in every key after it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.lab.terminal import ALPHABET, Terminal

PACE = 0.12  # seconds between keys: a quick typist


@dataclass(slots=True)
class Typist:
    """`pressed`: when each key was (monotonic, s). The keys run through the alphabet, again and again."""

    terminal: Terminal
    pressed: list[float] = field(default_factory=list)
    _mark: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def type_until_told(self, pace: float) -> None:
        self._mark = self.terminal.mark()
        keys = itertools.cycle(ALPHABET)
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.pressed.append(time.monotonic())
            self.terminal.write(next(keys))
            due += pace

    def stop(self) -> None:
        self._stop.set()

    def echoed(self) -> list[float]:
        """When each key's echo was shown, in their order; shorter than `pressed` while some have not come."""
        wanted = itertools.cycle(ALPHABET)
        expected = next(wanted)
        found: list[float] = []
        for shown, when in self.terminal.shown_since(self._mark):
            for character in shown:
                if character == expected and len(found) < len(self.pressed):
                    found.append(when)
                    expected = next(wanted)
        return found

    def finish(self, *, timeout: float = 30) -> list[float]:
        """Stop, wait for the last echo, and return how late each was, in seconds.

        Raises:
            AssertionError: a key was lost.
        """
        self.stop()
        deadline = time.monotonic() + timeout
        while len(found := self.echoed()) < len(self.pressed):
            if time.monotonic() > deadline:
                shown = self.terminal.text_since(self._mark)[-300:]
                raise AssertionError(f"{len(found)} of {len(self.pressed)} keys came back; shown last: {shown!r}")
            time.sleep(0.05)
        return [echo - press for echo, press in zip(found, self.pressed, strict=True)]


@contextmanager
def typing(terminal: Terminal, *, pace: float = PACE) -> Iterator[Typist]:
    """Somebody types from here to the end of the block."""
    typist = Typist(terminal)
    thread = threading.Thread(target=typist.type_until_told, args=(pace,), name="typist")
    thread.start()
    try:
        yield typist
    finally:
        typist.stop()
        thread.join()
