"""The send window of one stream: how many datagrams may be unacknowledged at a time.

A stream through somebody else's SSH connection hides megabytes of buffers, so only the peer can say what has arrived.
While acknowledgements come within GOOD_DELAY of the shortest round trip, the window grows by one datagram a round trip.
When *every* acknowledgement of an interval was late, a queue stands somewhere on the way, and the window is halved: the
idea of CoDel (RFC 8289). A single late acknowledgement comes from a lost segment. A smaller window would not mend that;
it would only make the delay longer.
"""

from __future__ import annotations

from collections import deque

MIN_WINDOW = 2
"""Datagrams: one under way and one behind it, so that a slow link (64 kbit/s) never idles and never queues long."""

FIRST_WINDOW = 8
MAX_WINDOW = 12
"""Datagrams. With fewer than 8, TCP's fast retransmit lacks duplicate acknowledgements; those beyond 12 would only wait
in buffers."""

GOOD_DELAY = 0.15
"""Seconds above the shortest round trip that still count as good: a person feels a longer queue."""

LATE_INTERVAL = 0.5
"""Seconds in which every acknowledgement must be late before the window shrinks: longer than a TCP retransmission
(200 ms)."""

SHORTEST_RTT_AGE = 30.0
"""Seconds for which the shortest round trip counts (up to twice as long), so that a new, longer route is learnt."""


class SendWindow:
    """The window for one direction of one stream.

    `size` is in datagrams, and `smoothed_rtt` in seconds, None before the first acknowledgement. Times are seconds on
    any steady clock.
    """

    def __init__(self) -> None:
        self.size = float(FIRST_WINDOW)
        self.smoothed_rtt: float | None = None
        self._sent: deque[float] = deque()
        self._acknowledged = 0
        self._shortest = float("inf")
        self._shortest_next = float("inf")  # since `_shortest_since`; it takes over when `_shortest` is too old
        self._shortest_since = 0.0
        self._late_since: float | None = None

    @property
    def room(self) -> int:
        """How many datagrams may be sent now."""
        return max(0, int(self.size) - len(self._sent))

    @property
    def oldest(self) -> float | None:
        """When the oldest unacknowledged datagram was sent; None when everything is acknowledged."""
        return self._sent[0] if self._sent else None

    def sent(self, now: float) -> None:
        """One datagram was written to the stream."""
        if not self._sent:
            self._late_since = None  # everything that was late has arrived, so no queue stands
        self._sent.append(now)

    def acknowledge(self, total: int, now: float) -> bool:
        """The peer has received `total` datagrams (modulo 2^32) on this stream.

        Returns:
            False when that is more than was sent: the peer breaks the protocol, and nothing is changed.
        """
        fresh = (total - self._acknowledged) & 0xFFFFFFFF
        if fresh > len(self._sent):
            return False
        if fresh:
            was_full = self.room == 0
            for _ in range(fresh):
                sent = self._sent.popleft()
            self._acknowledged = total
            self._learn(now - sent, now, fresh if was_full else 0)
        return True

    def _learn(self, rtt: float, now: float, growth: int) -> None:
        """Follow the newest round trip; `growth` is how many datagrams were acknowledged while the window was full."""
        if now - self._shortest_since > SHORTEST_RTT_AGE:
            self._shortest, self._shortest_next, self._shortest_since = self._shortest_next, rtt, now
        self._shortest = min(self._shortest, rtt)
        self._shortest_next = min(self._shortest_next, rtt)
        self.smoothed_rtt = rtt if self.smoothed_rtt is None else self.smoothed_rtt + (rtt - self.smoothed_rtt) / 8
        if rtt <= self._shortest + GOOD_DELAY:
            self._late_since = None
            self.size = min(MAX_WINDOW, self.size + growth / self.size)
        elif self._late_since is None:
            self._late_since = now
        elif now - self._late_since >= max(LATE_INTERVAL, 2 * self._shortest):
            self.size = max(MIN_WINDOW, self.size / 2)
            self._late_since = now
