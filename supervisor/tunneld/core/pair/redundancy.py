"""How often a small datagram is sent: as often as the loss asks for, and as the budget allows.

The receiver drops a copy that comes too late. One that comes first saves mosh a retransmission (50 ms to 1 s). Measured
with mosh at 5 % loss and a round trip of 80 ms: 99 of 100 keystrokes were echoed within 493 ms as mosh sends them,
within 145 ms with two copies, and within 109 ms with three.
"""

from __future__ import annotations

from tunneld.core.pair.headroom import Headroom
from tunneld.core.pair.loss import MIN_SAMPLE, REMEMBERED, Loss

MAX_COPIES = 4
"""Copies: at a loss of 18 % still less than one datagram in a thousand goes missing."""

ACCEPTED_LOSS = 1 / 1000
"""The share of datagrams that may get lost with all their copies."""

SPACING = (0.0, 0.004, 0.012, 0.028)
"""Seconds after which each copy leaves. Losses come in bursts, so each copy waits twice as long as the one before for
the worst to be over."""

RECENT = 5.0
"""Seconds: their loss counts when it is worse than that of the last REMEMBERED seconds."""

COPIES_IF_UNCERTAIN = 2
"""Copies after a change of path, when nobody knows what the new path is like."""

SPENDING_PERIOD = 10.0
"""Seconds over which the cost is averaged for people."""


def estimate(loss: Loss, now: float) -> float | None:
    """The share of packets that get lost; None when too few were counted. Exactly 0 when no packet was lost."""
    shares = []
    for seconds in (RECENT, REMEMBERED):
        sent, lost = loss.lately(seconds, now)
        if sent >= MIN_SAMPLE:
            # Laplace's rule of succession: of few packets, assume one loss more than was seen.
            shares.append((lost + 1) / (sent + 2) if lost else 0.0)
    return max(shares) if shares else None


def copies(share: float | None, *, uncertain: bool) -> int:
    """How often to send a datagram: the smallest k with share^k < ACCEPTED_LOSS, from 1 to MAX_COPIES.

    `share` is what `estimate` returns; `uncertain`: the path may be worse than the share says.
    """
    least = COPIES_IF_UNCERTAIN if uncertain else 1
    if not share:
        return least
    enough = next((k for k in range(1, MAX_COPIES) if share**k < ACCEPTED_LOSS), MAX_COPIES)
    return max(least, enough)


class Budget:
    """What copies may cost on all paths together (`limit` in kbit/s; 0: no copies), and what they do cost."""

    def __init__(self, limit: float, now: float) -> None:
        self.limit = limit
        self._headroom = Headroom(limit, now)
        self._began = now
        self._spent = self._last = 0.0

    def allows(self, cost: int, now: float) -> bool:
        """Take `cost` bytes; False, and nothing taken, when there are fewer."""
        if not self._headroom.take(cost, now):
            return False
        self._roll(now)
        self._spent += cost
        return True

    def spent(self, now: float) -> float:
        """The average cost of the last 10 to 20 s, in kbit/s."""
        self._roll(now)
        return (self._last + self._spent) * 8 / 1000 / (SPENDING_PERIOD + now - self._began)

    def _roll(self, now: float) -> None:
        if now - self._began >= SPENDING_PERIOD:
            self._last = self._spent if now - self._began < 2 * SPENDING_PERIOD else 0.0
            self._spent = 0.0
            self._began = now
