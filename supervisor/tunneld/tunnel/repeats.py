"""Which repetitions of an event get a line in the log, so that a link that flaps does not fill a journal."""

from __future__ import annotations

from collections.abc import Hashable

# Repetitions told apart at most; a relay that words each refusal differently must not grow the daemon.
MOST_REPEATED = 64


class Repeats:
    """Which repetitions of an event deserve a line: the 1st, 2nd, 4th, 8th ...; a day of retries makes a dozen."""

    def __init__(self) -> None:
        self._times: dict[Hashable, int] = {}
        self.hidden = 0  # how many got no line since the last forget()

    def count(self, key: Hashable) -> int:
        """Count one more of these; its number if it deserves a line, else 0."""
        if key not in self._times and len(self._times) >= MOST_REPEATED:
            key = None
        times = self._times[key] = self._times.get(key, 0) + 1
        if times & (times - 1) == 0:
            return times
        self.hidden += 1
        return 0

    def forget(self) -> int:
        """Start again from the first; how many had no line."""
        hidden, self.hidden = self.hidden, 0
        self._times.clear()
        return hidden
