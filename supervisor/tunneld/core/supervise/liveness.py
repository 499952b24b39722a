"""Whether a session still answers: when to ask it, and when to doubt it.

A session is asked for an answer after each `interval` of seconds. When the answer does not come in time, the session
becomes doubtful, unless the other machine's kernel acknowledged some of our bytes meanwhile: then the network works in
both directions, and the answer merely waits behind other data. A doubtful session is not given up: the tunnel dials a
second one, and keeps the first if it answers after all. Only keepalive declares a session dead.
"""

from __future__ import annotations

SHORTEST_PATIENCE = 1.0
"""Seconds to wait for an answer on a usual day: a mobile network that hands over is silent for less."""

LONGEST_PATIENCE = 5.0
"""Seconds to wait for an answer at most, however late earlier answers were."""

HURRIED_PATIENCE = 0.25
"""Seconds to wait for an answer when something has happened that may well have ended the session."""

ROUND_TRIPS = 3.0
"""How many round trips to wait for an answer: it may get lost once, and then has to be sent again."""

FORGETTING = 0.75
"""The part of a long round trip that still counts after each shorter one that follows it."""

SMOOTHING = 0.125
"""The share of the newest round trip in the smoothed one (RFC 6298, 2.3)."""


class Liveness:
    """The liveness of one session.

    `rtt` is the smoothed round trip in seconds, None before the first answer; `heard` is when the last answer came, and
    `doubted` whether an answer is overdue. Times are seconds on any steady clock.

    `acknowledged`, which `tick` and `nudge` take, counts the bytes that the other kernel has acknowledged; it only
    grows, and is None where the system does not tell.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval = interval
        self._due = now + interval
        self._asked: float | None = None
        self._acknowledged: int | None = None
        self._slowest = 0.0
        self._is_hurried = False
        self.rtt: float | None = None
        self.heard = now
        self.doubted = False

    @property
    def patience(self) -> float:
        """Seconds that an answer may take."""
        shortest = HURRIED_PATIENCE if self._is_hurried else SHORTEST_PATIENCE
        return min(max(shortest, ROUND_TRIPS * self._slowest), LONGEST_PATIENCE)

    def deadline(self) -> float | None:
        """When to call `tick`; None: not before the session answers or is nudged."""
        return None if self.doubted else self._due

    def tick(self, now: float, acknowledged: int | None) -> bool:
        """Whether to ask the session for an answer now; doubts the session when an answer is overdue."""
        if self.doubted or now < self._due:
            return False
        if self._asked is None:
            self._asked = now
            self._wait(now, acknowledged)
            return True
        if acknowledged is not None and self._acknowledged is not None and acknowledged > self._acknowledged:
            self._wait(now, acknowledged)
        else:
            self.doubted = True
        return False

    def answered(self, now: float) -> None:
        """The session answered: it is no longer doubted, and is asked again after an interval."""
        if self._asked is not None:
            self._learn(now - self._asked)
        self.heard = now
        self._asked = None
        self._is_hurried = self.doubted = False
        self._due = now + self._interval

    def nudge(self, now: float, acknowledged: int | None) -> None:
        """Something happened that may have ended the session: ask at once, and wait for the answer only shortly."""
        self._is_hurried = True
        if self._asked is None:
            self._due = now
        else:
            self._wait(now, acknowledged)

    def _learn(self, took: float) -> None:
        """Follow a round trip.

        One during which the session was doubted may contain an outage: it only raises the patience for the next answer.
        """
        if not self.doubted:
            self.rtt = took if self.rtt is None else self.rtt + SMOOTHING * (took - self.rtt)
        self._slowest = max(min(took, self.patience), FORGETTING * self._slowest)

    def _wait(self, now: float, acknowledged: int | None) -> None:
        self._acknowledged = acknowledged
        self._due = now + self.patience
