"""What may be sent besides mosh's own datagrams: so much a second, and less where something waits on the way.

A slow line has no room for what a fast one does not notice. Copies make a queue there, what a full queue drops looks
like loss, and loss asks for more copies. So each queue halves the room, which then grows back slowly, as TCP's window
does: simulated, a line of 64 kbit/s that loses 5 % had its echoes after two seconds without this.
"""

from __future__ import annotations

BURST = 2.0
"""Seconds of it that may be taken at once."""

HALVED_EVERY = 0.5
"""Seconds at least between two cuts: one takes that long to show."""

LEAST = 1 / 16
"""The share that is left in any case: what looks like a queue may be a longer way."""

REGAINED_IN = 60.0
"""Seconds from nothing to the whole again."""


class Headroom:
    """`most` in kbit/s: at first, and in the end."""

    def __init__(self, most: float, now: float) -> None:
        self._most = self._rate = most * 1000 / 8
        self._left = self._rate * BURST
        self._filled = self._cut = now

    def take(self, cost: int, now: float) -> bool:
        """Take `cost` bytes if there are as many."""
        self._fill(now)
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def halve(self, now: float) -> None:
        """Something waits on the way: half as much from now on, and nothing that was saved."""
        self._fill(now)
        self._left = 0.0
        if now - self._cut >= HALVED_EVERY:
            self._cut = now
            self._rate = max(self._rate / 2, self._most * LEAST)

    def size(self, now: float) -> float:
        """kbit/s, at present."""
        self._fill(now)
        return self._rate * 8 / 1000

    def _fill(self, now: float) -> None:
        passed, self._filled = now - self._filled, now
        self._rate = min(self._most, self._rate + passed * self._most / REGAINED_IN)
        self._left = min(self._rate * BURST, self._left + passed * self._rate)
