"""Round trips of one path: the usual one, the shortest, when an answer is late, whether something waits on the way."""

from __future__ import annotations

from collections import deque
from math import inf

LATE = 0.015
"""Seconds, at least, by which an answer may exceed the usual round trip: two machines have something else to do."""

UNKNOWN = 0.5
"""Seconds that a round trip is taken for before one was measured."""

GROUPS, GROUP = 16, 0.25
"""Round trips of which the shortest is compared, and the seconds of which each is the shortest: a queue that comes and
goes makes no path longer than another, however many questions meet it."""

QUEUE, JITTERS, QUEUED = 0.05, 3, 8
"""Seconds, or times the jitter, by which each of the last QUEUED round trips exceeds the shortest when something waits
on the way: where packets come as they like, some are late by chance."""


class RoundTrips:
    """`usual` is smoothed, in seconds; None: none was measured."""

    def __init__(self) -> None:
        self.usual: float | None = None
        self._swing = 0.0
        self._jitter = 0.0
        self._last: float | None = None
        self._shortest: list[float] = []
        self._began = -inf
        self._recent: deque[float] = deque(maxlen=QUEUED)

    @property
    def shortest(self) -> float:
        """The least of the last GROUPS; inf: none was measured."""
        return min(self._shortest, default=inf if self.usual is None else self.usual)

    @property
    def has_queue(self) -> bool:
        """Something waits on the way, as far as the last answers say."""
        is_known = len(self._recent) == QUEUED
        return is_known and min(self._recent) - self.shortest > max(QUEUE, JITTERS * self._jitter)

    @property
    def late(self) -> float:
        """Seconds after which an answer that has not come is late (as in RFC 6298, but for the least)."""
        return (UNKNOWN if self.usual is None else self.usual) + max(LATE, 4 * self._swing)

    def learn(self, asked: float, now: float) -> None:
        """The answer to what was asked at `asked` comes."""
        trip = now - asked
        self._swing += (abs(trip - self.usual) - self._swing) / 4 if self.usual is not None else trip / 2
        self.usual = trip if self.usual is None else self.usual + (trip - self.usual) / 8
        if self._last is not None:
            self._jitter += (abs(trip - self._last) - self._jitter) / 16  # as in RFC 3550
        self._last = trip
        self._recent.append(trip)
        if self._shortest and now - self._began < GROUP:
            self._shortest[-1] = min(self._shortest[-1], trip)
        else:
            self._shortest = [*self._shortest, trip][-GROUPS:]
            self._began = now

    def forget_shortest(self) -> None:
        """The way may have become another one."""
        self._shortest.clear()
        self._recent.clear()
