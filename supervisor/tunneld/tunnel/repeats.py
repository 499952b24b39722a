"""Which repetitions of an event get a line in the log, so that a link that flaps does not fill a journal."""

from __future__ import annotations

from collections.abc import Hashable

# Kinds of events that are counted apart. A relay that words each refusal differently must not grow the daemon, so
# later kinds are counted together.
MOST_REPEATED = 64


class Repeats:
    """Of events of one kind the 1st, 2nd, 4th, 8th ... deserve a line, so a day of retries makes a dozen."""

    def __init__(self) -> None:
        self._times: dict[Hashable, int] = {}
        self.hidden = 0  # events that got no line since the last forget()

    def count(self, key: Hashable) -> int:
        """Count one more event of this kind. Returns how many there were if it deserves a line, else 0."""
        if key not in self._times and len(self._times) >= MOST_REPEATED:
            key = None
        times = self._times[key] = self._times.get(key, 0) + 1
        if times & (times - 1) == 0:
            return times
        self.hidden += 1
        return 0

    def forget(self) -> int:
        """Count every kind from the start again. Returns how many events got no line."""
        hidden, self.hidden = self.hidden, 0
        self._times.clear()
        return hidden
