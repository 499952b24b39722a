"""Which of several relays serves the tunnel, and which further relays are dialled.

Relays are numbered from 0 in their order of preference. Each relay that is dialled has a backoff of its own; a relay is
well while it has a session that answers. The first relay is always dialled, a later one when all relays before it are
unwell; once a relay serves, the later ones are left alone. An earlier relay that is well again returns to service only
after it has been well for its return delay: until then the relay that serves keeps the tunnel.
"""

from __future__ import annotations

from collections.abc import Sequence

HEAD_START = (2.0, 6.0)
"""Seconds, least and most, before the next relay is dialled as well: most faults are over by then, and a login over a
satellite link nearly done. Drawn at random, so that a fleet that loses its relay does not dial the next one all within
the same second."""

SETTLED_AFTER = 3.0
"""Seconds that a relay must have served before somebody relies on it. An earlier relay may replace it sooner."""

MAX_RETURN_DELAY = 3600.0
"""Seconds that an earlier relay must be well at most, however often it lost the tunnel soon after it got it back."""


class Failover:
    """Decides at each `look`.

    `serving` is the relay that has the tunnel, or had it last; the relays up to `last` are dialled. `deadline` says
    when to look again if no relay changes before that, None: not at all. Times are seconds on any steady clock.
    """

    def __init__(self, count: int, return_after: float) -> None:
        """`count` relays; an earlier one returns to service after it has been well for `return_after` seconds."""
        self.serving = self.last = 0
        self.deadline: float | None = None
        self._return_after = return_after
        self._well_since: list[float | None] = [None] * count
        self._return_delays = [return_after] * count
        self._served_since: float | None = None  # None while `serving` is unwell
        self._dial_next_at: float | None = None  # when one more relay is dialled; None while a relay serves

    def look(self, well: Sequence[bool], now: float, chance: float) -> None:
        """See which relays are well now, and decide; `chance` is uniform in [0, 1)."""
        for relay, is_well in enumerate(well):
            if is_well != (self._well_since[relay] is not None):
                self._well_since[relay] = now if is_well else None
        self._adjust_return_delay(now)
        best = self._best(now)
        if best != self.serving or self._served_since is None:
            self.serving, self._served_since = best, None if self._well_since[best] is None else now
        self._dial_further(now, chance)
        self.deadline = self._next_deadline()

    def returns_at(self, relay: int) -> float | None:
        """When this relay serves again if it stays well; None unless it is well, and before the one that serves."""
        since = self._well_since[relay]
        return since + self._return_delays[relay] if relay < self.serving and since is not None else None

    def _adjust_return_delay(self, now: float) -> None:
        """Double the delay of a relay that has just lost the tunnel within its return delay; else reset that delay."""
        if self._served_since is None or self._well_since[self.serving] is not None:
            return
        served, delay = now - self._served_since, self._return_delays[self.serving]
        self._return_delays[self.serving] = self._return_after if served >= delay else min(2 * delay, MAX_RETURN_DELAY)
        self._served_since = None

    def _best(self, now: float) -> int:
        well_since = self._well_since[self.serving]
        if well_since is None:
            return next((relay for relay, since in enumerate(self._well_since) if since is not None), self.serving)
        is_new = now - well_since < SETTLED_AFTER
        for relay, since in enumerate(self._well_since[: self.serving]):
            # The same sum as in _next_deadline: with a rounding error between the two, we would look without end.
            if since is not None and (is_new or now >= since + self._return_delays[relay]):
                return relay
        return self.serving

    def _dial_further(self, now: float, chance: float) -> None:
        """While no relay serves, dial one more each time that a head start is over."""
        if self._served_since is not None:
            self.last, self._dial_next_at = self.serving, None
            return
        least, most = HEAD_START
        if self._dial_next_at is None:
            self._dial_next_at = now + least + chance * (most - least)
        elif now >= self._dial_next_at and self._has_further():
            self.last, self._dial_next_at = self.last + 1, now + least + chance * (most - least)

    def _has_further(self) -> bool:
        return self.last + 1 < len(self._well_since)

    def _next_deadline(self) -> float | None:
        if self._dial_next_at is not None:
            return self._dial_next_at if self._has_further() else None
        returns = map(self.returns_at, range(self.serving))
        return min((due for due in returns if due is not None), default=None)
