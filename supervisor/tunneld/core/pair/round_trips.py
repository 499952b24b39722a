"""Round trips of one path: the usual and the shortest one, when an answer is late, whether a queue is on the way."""

from __future__ import annotations

from collections import deque
from math import inf

LATE_MARGIN = 0.015
"""Seconds at least by which an answer may exceed the usual round trip: two machines have other things to do."""

ASSUMED_TRIP = 0.5
"""Seconds that a round trip is taken for before one was measured."""

GROUPS, GROUP = 16, 0.25
"""The shortest round trip is that of the last GROUPS groups, each of GROUP seconds. So a queue that comes and goes does
not make the path look longer than another one, however many questions meet the queue."""

QUEUE, JITTERS, QUEUED = 0.05, 3, 8
"""There is a queue when each of the last QUEUED round trips exceeds the shortest one by QUEUE seconds, and by JITTERS
times the jitter: where delays vary widely, some round trips are long by chance."""


class RoundTrips:
    """`usual` is the smoothed round trip in seconds (as in RFC 6298); None: none was measured."""

    def __init__(self) -> None:
        self.usual: float | None = None
        self._swing = 0.0  # RFC 6298's RTTVAR
        self._jitter = 0.0
        self._last: float | None = None
        self._shortest: list[float] = []  # of each group
        self._began = -inf
        self._recent: deque[float] = deque(maxlen=QUEUED)

    @property
    def shortest(self) -> float:
        """Seconds: the shortest round trip of the last GROUPS groups; inf: none was measured."""
        return min(self._shortest, default=inf if self.usual is None else self.usual)

    @property
    def has_queue(self) -> bool:
        """Whether packets have lately waited on the way behind others."""
        is_known = len(self._recent) == QUEUED
        return is_known and min(self._recent) - self.shortest > max(QUEUE, JITTERS * self._jitter)

    @property
    def late(self) -> float:
        """Seconds after which a missing answer is late.

        As RFC 6298's timeout (section 2.3), but with LATE_MARGIN as the least variation, and no minimum of a second.
        """
        return (ASSUMED_TRIP if self.usual is None else self.usual) + max(LATE_MARGIN, 4 * self._swing)

    def learn(self, asked: float, now: float) -> None:
        """The answer to a question of the moment `asked` comes now."""
        trip = now - asked
        self._swing += (abs(trip - self.usual) - self._swing) / 4 if self.usual is not None else trip / 2
        self.usual = trip if self.usual is None else self.usual + (trip - self.usual) / 8
        if self._last is not None:
            self._jitter += (abs(trip - self._last) - self._jitter) / 16  # RFC 3550, section 6.4.1
        self._last = trip
        self._recent.append(trip)
        if self._shortest and now - self._began < GROUP:
            self._shortest[-1] = min(self._shortest[-1], trip)
        else:
            self._shortest = [*self._shortest, trip][-GROUPS:]
            self._began = now

    def forget_shortest(self) -> None:
        """The route may have changed: forget the shortest round trips, which a longer route would never reach."""
        self._shortest.clear()
        self._recent.clear()
