"""What a line can take besides mosh's own datagrams: so much a second, and less while a queue stands on the way.

A slow line has no room for what a fast one does not notice. Copies make a queue there; what a full queue drops looks
like loss, and loss asks for more copies. So each sight of a queue halves the rate, which then grows back slowly, as
TCP's window does (RFC 5681, section 3.1). Simulated without this, a line of 64 kbit/s that loses 5 % had its echoes
after two seconds.
"""

from __future__ import annotations

BURST = 2.0
"""Seconds' worth of the rate that may be taken at once."""

HALVED_EVERY = 0.5
"""Seconds at least between two cuts: a cut takes that long to show."""

LEAST_SHARE = 1 / 16
"""The share of the whole rate that always remains: what looks like a queue may be a longer route."""

REGAINED_IN = 60.0
"""Seconds in which the rate would grow from nothing to the whole."""


class Headroom:
    """A token bucket whose rate shrinks and recovers. `most` is the whole rate in kbit/s; the bucket begins full."""

    def __init__(self, most: float, now: float) -> None:
        self._most = self._rate = most * 1000 / 8  # bytes a second
        self._left = self._rate * BURST
        self._filled = self._cut = now

    def take(self, cost: int, now: float) -> bool:
        """Take `cost` bytes; False, and nothing taken, when there are fewer."""
        self._fill(now)
        if cost > self._left:
            return False
        self._left -= cost
        return True

    def halve(self, now: float) -> None:
        """A queue stands on the way: empty the bucket, and halve its rate unless a cut was made a moment ago."""
        self._fill(now)
        self._left = 0.0
        if now - self._cut >= HALVED_EVERY:
            self._cut = now
            self._rate = max(self._rate / 2, self._most * LEAST_SHARE)

    def size(self, now: float) -> float:
        """The present rate in kbit/s."""
        self._fill(now)
        return self._rate * 8 / 1000

    def _fill(self, now: float) -> None:
        passed, self._filled = now - self._filled, now
        self._rate = min(self._most, self._rate + passed * self._most / REGAINED_IN)
        self._left = min(self._rate * BURST, self._left + passed * self._rate)
