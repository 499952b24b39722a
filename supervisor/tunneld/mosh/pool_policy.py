"""How many SSH connections a session keeps, when it makes another, and which it drops: no processes, no clock.

Two streams are kept, because then one lost segment delays no keystroke. A stream that owes an answer for too long is
suspected: another stream is made first, and only then the suspected one is dropped. SshPool does what `decide` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

WANTED_STREAMS = 2

MOST_STREAMS = 4
"""Streams at once, with the suspected ones; our agent on DEST takes six."""

SUSPECTED = 3.0
"""Seconds that an answer is overdue. A stream is pinged every 3 s, and mosh tells the person after 6.5 s of silence."""

SLOW = 5.0
"""Seconds after which a second attempt is made beside one that is still being made, which takes six round trips."""

DIALLING = 25.0
"""Seconds after which an attempt is given up; ssh itself gives up connecting after 10."""

LIVED = 10.0
"""Seconds that a stream must have lived, so that its end does not count as a failed attempt."""

SHORTEST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds between two attempts: they double, and half of each pause is left to chance."""

SHORTEST_DENIED, LONGEST_DENIED = 300.0, 1800.0
"""Seconds until an account that refused us is asked again; they double as well. Servers lock out who insists: fail2ban
by default after five refusals in ten minutes, others after five in an hour."""


class PooledStream(NamedTuple):
    """A stream as the pair sees it. `overdue`: seconds that an answer is late; `age`: seconds since ssh was started."""

    name: str
    is_greeted: bool
    overdue: float
    age: float

    @property
    def is_well(self) -> bool:
        return self.is_greeted and self.overdue < SUSPECTED

    @property
    def is_coming(self) -> bool:
        return not self.is_greeted and self.age < DIALLING


class Decision(NamedTuple):
    """Whether to start another ssh now, and which streams to drop."""

    dials: bool
    drops: tuple[str, ...]


class PoolPolicy:
    """Keeps `wanted` streams, and starts none before the time `since`. All times are seconds of one monotonic clock."""

    def __init__(self, since: float, wanted: int = WANTED_STREAMS) -> None:
        self.wanted = wanted
        self.failures = 0
        self._denials = 0
        self._next = since

    def decide(self, streams: Iterable[PooledStream], now: float) -> Decision:
        """What to do now. Ask again at short intervals; a decision to dial counts as carried out."""
        streams = list(streams)
        well = [each for each in streams if each.is_well]
        coming = [each for each in streams if each.is_coming]
        drops = [each.name for each in streams if not each.is_greeted and not each.is_coming]
        if len(well) >= self.wanted:
            drops += [each.name for each in streams if not each.is_well and each.name not in drops]
        expected = [each for each in coming if each.age < SLOW]
        has_room = len(streams) - len(drops) < MOST_STREAMS
        dials = len(well) < self.wanted and not expected and has_room and now >= self._next
        if dials:
            self._next = now + SHORTEST_RETRY
        return Decision(dials, tuple(drops))

    def pause(self, now: float) -> float:
        """Seconds until the next attempt, if one is needed then."""
        return max(0.0, self._next - now)

    def greeted(self) -> None:
        """A new stream works: earlier failures do not count any more."""
        self.failures = self._denials = 0

    def lost(self, *, lived: float, now: float) -> None:
        """A stream that worked has ended after `lived` seconds. If it lived long, another is made at once."""
        if lived >= LIVED:
            self._next = min(self._next, now)

    def failed(self, *, denied: bool, now: float, chance: float) -> None:
        """An attempt failed; `denied`: the account refused us. `chance` is a random number from 0 to 1."""
        self.failures += 1
        self._denials += denied
        if denied:
            pause = min(LONGEST_DENIED, SHORTEST_DENIED * 2.0 ** min(self._denials - 1, 5))
        else:
            pause = min(LONGEST_RETRY, SHORTEST_RETRY * 2.0 ** min(self.failures - 1, 5))
        self._next = now + pause * (0.5 + 0.5 * chance)

    def stranded(self, now: float) -> None:
        """Neither a stream nor a path works, and a person waits: no pause is longer than SHORTEST_DENIED."""
        self._next = min(self._next, now + SHORTEST_DENIED)

    def network_changed(self, now: float) -> None:
        """Attempts that failed on the old network do not count, and another may be made at once."""
        self.failures = self._denials = 0
        self._next = now
