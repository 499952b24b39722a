"""Tells whether time has passed that a program did not see: the machine slept, or the program itself stood still."""

from __future__ import annotations

LONGEST_NAP = 2.0
"""Seconds. A sleep of at most that long is ignored: NATs and peers do not notice it."""

LONGEST_LATENESS = 3.0
"""Seconds by which a look may be late. When it is later, the process was stopped, or a virtual machine was paused, and
the system does not tell of that as sleep. A busy machine is late as well, but not by that much."""


class SleepWatch:
    """Compares each look at two clocks with the one before. A look is due every `every` seconds.

    `now` is in seconds of a clock that stands still while the machine sleeps (CLOCK_MONOTONIC of Linux,
    clock_gettime(2)), `asleep` in seconds, of any origin, that the machine has slept so far.
    """

    def __init__(self, every: float, now: float, asleep: float) -> None:
        self._every = every
        self._now, self._asleep = now, asleep

    def missed_time(self, now: float, asleep: float) -> bool:
        """Look: whether the machine slept or the program stood still since the look before, for so long that addresses
        and peers must be asked anew."""
        lateness, nap = now - self._now - self._every, asleep - self._asleep
        self._now, self._asleep = now, asleep
        return nap > LONGEST_NAP or lateness > LONGEST_LATENESS
