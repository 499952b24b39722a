"""How many datagrams may be under way on one stream, following the delay that the peer's acknowledgements show.

A stream through somebody else's SSH connection hides megabytes of buffer, so only the peer can say what arrived. As
long as acknowledgements come within a good delay of the best seen, the window grows by one a round trip; when *every*
one of an interval was late, a queue stands somewhere on the way and the window shrinks (the idea of CoDel, RFC 8289: a
single late answer is a lost segment, which a smaller window would not mend but prolong).
"""

from __future__ import annotations

from collections import deque

SMALLEST = 2
"""Datagrams: one under way and one behind it, so that a slow link (64 kbit/s) never idles and never queues long."""

INITIAL = 8
LARGEST = 12
"""Datagrams. Fewer than 8 starve TCP's fast retransmit of duplicate acknowledgements; more only wait in buffers."""

GOOD_DELAY = 0.15
"""Seconds over the best round trip that are still good: above it a person feels the queue."""

INTERVAL = 0.5
"""Seconds in which every answer must be late before the window shrinks: longer than a TCP retransmission (200 ms)."""

BASE_AGE = 30.0
"""Seconds for which the best round trip counts, so that a new, longer route is learnt."""


class SendWindow:
    """One direction of one stream. Times are seconds on any steady clock."""

    def __init__(self) -> None:
        self.window = float(INITIAL)
        self.smoothed: float | None = None
        self._sent: deque[float] = deque()
        self._acknowledged = 0
        self._base = float("inf")
        self._base_next = float("inf")
        self._base_since = 0.0
        self._late_since: float | None = None

    @property
    def under_way(self) -> int:
        return len(self._sent)

    @property
    def room(self) -> int:
        """Datagrams that may be sent now."""
        return max(0, int(self.window) - len(self._sent))

    @property
    def oldest(self) -> float | None:
        """When the oldest unacknowledged datagram was sent."""
        return self._sent[0] if self._sent else None

    def sent(self, now: float) -> None:
        if not self._sent:
            self._late_since = None  # what was late before is through: no queue stands
        self._sent.append(now)

    def acknowledge(self, total: int, now: float) -> bool:
        """The peer has received `total` datagrams (modulo 2^32) on this stream.

        Returns:
            False when that is more than was sent: the peer is wrong.
        """
        fresh = (total - self._acknowledged) & 0xFFFFFFFF
        if fresh > len(self._sent):
            return False
        if fresh:
            limited = self.room == 0
            for _ in range(fresh):
                sent = self._sent.popleft()
            self._acknowledged = total
            self._learn(now - sent, now, fresh if limited else 0)
        return True

    def _learn(self, delay: float, now: float, growth: int) -> None:
        """`delay` is the newest datagram's; `growth` is how many were acknowledged while the window was the limit."""
        if now - self._base_since > BASE_AGE:
            self._base, self._base_next, self._base_since = self._base_next, delay, now
        self._base = min(self._base, delay)
        self._base_next = min(self._base_next, delay)
        self.smoothed = delay if self.smoothed is None else self.smoothed + (delay - self.smoothed) / 8
        if delay <= self._base + GOOD_DELAY:
            self._late_since = None
            self.window = min(LARGEST, self.window + growth / self.window)
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since >= max(INTERVAL, 2 * self._base):
            self.window = max(SMALLEST, self.window / 2)
            self._late_since = now
