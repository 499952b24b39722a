"""Which of several relays serves, and which are dialled beside it.

Relays are numbered from 0 in their order of preference. Each that is dialled goes on for itself, with a backoff of its
own; one is well while it has a session that answers. The first is always dialled, a later one when all before it are
unwell, and once one serves the later ones are left alone. An earlier relay that comes back serves again when it has
been well for a while: before that, nothing is taken from the one that does.
"""

from __future__ import annotations

from collections.abc import Sequence

# Seconds that a relay has for itself before the next one is dialled as well: most faults are over by then, and a login
# over a satellite link nearly done. Drawn, else a fleet that loses its relay would be at the next one in one second.
HEAD_START = (2.0, 6.0)

# Seconds that a relay must have served until somebody relies on it.
USED_TO = 3.0

# Seconds: the longest that a relay has to be well again, however often it lost the tunnel soon after it got it back.
LONGEST_PROOF = 3600.0


class Failover:
    """`serving` has the tunnel, or had it last; the relays up to `last` are dialled.

    Times are seconds, `now` is any steady clock's, `chance` uniform in [0, 1).
    """

    def __init__(self, count: int, return_after: float) -> None:
        """An earlier relay serves again when it has been well for `return_after` seconds."""
        self.serving = self.last = 0
        self.deadline: float | None = None  # when to look again, if nothing changes before
        self._return_after = return_after
        self._well_since: list[float | None] = [None] * count
        self._proof = [return_after] * count  # how long each has to be well before it serves again
        self._served_since: float | None = None  # None while `serving` is unwell
        self._let_in_at: float | None = None  # when one more relay is dialled; None while one serves

    def look(self, well: Sequence[bool], now: float, chance: float) -> None:
        """See how each relay is now, and decide."""
        for relay, is_well in enumerate(well):
            if is_well != (self._well_since[relay] is not None):
                self._well_since[relay] = now if is_well else None
        self._judge(now)
        best = self._best(now)
        if best != self.serving or self._served_since is None:
            self.serving, self._served_since = best, None if self._well_since[best] is None else now
        self._let_in(now, chance)
        self.deadline = self._next()

    def returns_at(self, relay: int) -> float | None:
        """When this relay serves again if it stays well; None unless it is well, and before the one that serves."""
        since = self._well_since[relay]
        return since + self._proof[relay] if relay < self.serving and since is not None else None

    def _judge(self, now: float) -> None:
        """A relay that did not keep the tunnel for as long as it had to prove itself has to prove more next time."""
        if self._served_since is None or self._well_since[self.serving] is not None:
            return
        kept, proof = now - self._served_since, self._proof[self.serving]
        self._proof[self.serving] = self._return_after if kept >= proof else min(2 * proof, LONGEST_PROOF)
        self._served_since = None

    def _best(self, now: float) -> int:
        here = self._well_since[self.serving]
        if here is None:
            return next((relay for relay, since in enumerate(self._well_since) if since is not None), self.serving)
        is_new = now - here < USED_TO
        for relay, since in enumerate(self._well_since[: self.serving]):
            # Compared as the deadline is computed: a rounding error between the two would have it look for ever.
            if since is not None and (is_new or now >= since + self._proof[relay]):
                return relay
        return self.serving

    def _let_in(self, now: float, chance: float) -> None:
        """While nobody serves, one more relay at a time is dialled."""
        if self._served_since is not None:
            self.last, self._let_in_at = self.serving, None
            return
        least, most = HEAD_START
        if self._let_in_at is None:
            self._let_in_at = now + least + chance * (most - least)
        elif now >= self._let_in_at and self._waits():
            self.last, self._let_in_at = self.last + 1, now + least + chance * (most - least)

    def _waits(self) -> bool:
        return self.last + 1 < len(self._well_since)

    def _next(self) -> float | None:
        if self._let_in_at is not None:
            return self._let_in_at if self._waits() else None
        returns = map(self.returns_at, range(self.serving))
        return min((due for due in returns if due is not None), default=None)
