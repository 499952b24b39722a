"""How many SSH connections a session keeps, when it makes another, and which it lets go: no processes, no clock.

Two streams are wanted, because one lost segment then delays no keystroke. A stream that owes an answer for too long is
suspected: another is made beside it, and only then it goes. Whoever holds a Keeping does what `decide` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

WANTED = 2

MOST = 4
"""Streams, suspected ones included; the far agent takes six."""

SUSPECTED = 3.0
"""Seconds that an answer is overdue: a stream is pinged every 3 s, and mosh tells the person after 6.5."""

SLOW = 5.0
"""Seconds after which a connection that is being made is waited for no longer alone: it takes six round trips."""

DIALLING = 25.0
"""Seconds for a connection to be made; ssh itself gives up connecting after 10."""

LIVED = 10.0
"""Seconds after which a stream that ends is no failed attempt."""

SHORTEST, LONGEST = 1.0, 30.0
"""Seconds between two attempts: doubling, with half of it left to chance."""

DENIED, LONGEST_DENIED = 300.0, 1800.0
"""Seconds until an account that refused us is asked again, doubling as well: people lock those out who insist (five in
ten minutes is fail2ban's own limit, five in an hour a usual one)."""


class PooledStream(NamedTuple):
    """A stream as the pair sees it; `overdue`: seconds that an answer is late, `age`: since it was asked for."""

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
    dials: bool
    drops: tuple[str, ...]


class PoolPolicy:
    """`wanted` streams are kept; none is made before `since`."""

    def __init__(self, since: float, wanted: int = WANTED) -> None:
        self.wanted = wanted
        self.failures = 0
        self._denials = 0
        self._next = since

    def decide(self, streams: Iterable[PooledStream], now: float) -> Decision:
        """What to do now; ask again soon, and after each thing that happened."""
        streams = list(streams)
        well = [each for each in streams if each.is_well]
        coming = [each for each in streams if each.is_coming]
        drops = [each.name for each in streams if not each.is_greeted and not each.is_coming]
        if len(well) >= self.wanted:
            drops += [each.name for each in streams if not each.is_well and each.name not in drops]
        expected = [each for each in coming if each.age < SLOW]
        has_room = len(streams) - len(drops) < MOST
        dials = len(well) < self.wanted and not expected and has_room and now >= self._next
        if dials:
            self._next = now + SHORTEST
        return Decision(dials, tuple(drops))

    def pause(self, now: float) -> float:
        """Seconds until another one is made, if one is wanted."""
        return max(0.0, self._next - now)

    def came(self) -> None:
        """A stream was greeted."""
        self.failures = self._denials = 0

    def lost(self, *, lived: float, now: float) -> None:
        """A stream that was well has ended: another one at once, if that is no pattern."""
        if lived >= LIVED:
            self._next = min(self._next, now)

    def failed(self, *, denied: bool, now: float, chance: float) -> None:
        """An attempt came to nothing; `chance` is from 0 to 1."""
        self.failures += 1
        self._denials += denied
        if denied:
            pause = min(LONGEST_DENIED, DENIED * 2.0 ** min(self._denials - 1, 5))
        else:
            pause = min(LONGEST, SHORTEST * 2.0 ** min(self.failures - 1, 5))
        self._next = now + pause * (0.5 + 0.5 * chance)

    def stranded(self, now: float) -> None:
        """Nothing carries any more, and a person waits."""
        self._next = min(self._next, now + DENIED)

    def moved(self, now: float) -> None:
        """The network is another one: what failed there says nothing."""
        self.failures = self._denials = 0
        self._next = now
