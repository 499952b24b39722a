"""Whether a session still answers: when to ask, and when to doubt it.

A question is asked after each `interval` of seconds. One that is not answered in time makes the session doubtful,
unless the other machine's kernel acknowledged something of ours meanwhile: then the way is open both ways, and the
answer merely waits behind other data. To doubt is no verdict: whoever dials a second session for it keeps the first
one if that answers after all. When a session is dead is for its keepalive to say.
"""

from __future__ import annotations

SHORTEST_PATIENCE = 1.0
"""Seconds for an answer on a usual day: a mobile network that hands over is silent for less."""

LONGEST_PATIENCE = 5.0
"""Seconds, however late earlier answers were."""

HURRIED_PATIENCE = 0.25
"""Seconds for an answer when something has happened that may well have ended the session."""

ROUND_TRIPS = 3.0
"""A patience, in round trips: an answer may have to be sent again once."""

FORGETTING = 0.75
"""What is kept of a long round trip with each shorter one that follows it."""

SMOOTHING = 0.125
"""The share of the newest round trip in the one that is shown (RFC 6298, 2.3)."""


class Liveness:
    """One session's. `acknowledged` is a count of bytes that only grows; None where it cannot be had."""

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
        """When to call `tick`; None: not before something happens."""
        return None if self.doubted else self._due

    def tick(self, now: float, acknowledged: int | None) -> bool:
        """Whether to ask now."""
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
        """The answer to our question came."""
        if self._asked is not None:
            self._note(now - self._asked)
        self.heard = now
        self._asked = None
        self._is_hurried = self.doubted = False
        self._due = now + self._interval

    def _note(self, took: float) -> None:
        """Learn from a round trip; from one that made us doubt, no more than that it is longer than we thought."""
        if not self.doubted:
            self.rtt = took if self.rtt is None else self.rtt + SMOOTHING * (took - self.rtt)
        self._slowest = max(min(took, self.patience), FORGETTING * self._slowest)

    def nudge(self, now: float, acknowledged: int | None) -> None:
        """Something happened that may have ended the session: ask at once, and wait no longer than is usual here."""
        self._is_hurried = True
        if self._asked is None:
            self._due = now
        else:
            self._wait(now, acknowledged)

    def _wait(self, now: float, acknowledged: int | None) -> None:
        self._acknowledged = acknowledged
        self._due = now + self.patience
