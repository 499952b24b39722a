"""How long to wait before the next dial, as two tables by failure class.

What costs the relay nothing (it is away, or nothing listens there) is tried again in a rhythm that follows the outage:
every second at first, then in proportion, so that whoever waits adds a fixed share to it. What costs the relay an
answer doubles with each failure of its class. A wait is drawn evenly between a floor and an envelope ("full jitter", so
that a thousand hosts do not come back to a restarted relay in step; the floor because an unbounded draw came as low as
0.13 s). Time and chance are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunneld.core.supervise.lifecycle import Failure

# Doublings beyond this change nothing (2**32 s is 136 years) and would overflow a float one day.
MOST_DOUBLINGS = 32

# Seconds from the end of an attempt to the next, however long the attempt took: a fault that comes back at once (no
# route, no file descriptor left) must not become a busy loop.
SHORTEST = 0.3


@dataclass(frozen=True)
class Pace:
    """One failure class against the profile's figures.

    The first wait is at most `times` the initial one, and every wait at least the `part` of that, or `least` seconds.
    """

    times: float = 1.0
    part: float = 1 / 2
    least: float = 0.0


@dataclass(frozen=True)
class Share:
    """The longest wait as a share of the outage so far, and its cap as a share of the profile's `maximum`."""

    outage: float
    maximum: float


# Seconds for what only a human mends. OpenSSH's PerSourcePenalties counts 5 s per refused login and locks the address
# out from 15 s on: once a minute stays below that for ever.
HUMAN = 60.0

PACE: dict[Failure, Pace] = {
    Failure.NETWORK: Pace(),
    Failure.CLOSED: Pace(),
    # Something answers that does not let us in: a relay with too many at its door, a penalty, sometimes a wrong port.
    # A fleet turned away in one second spreads over three (bench/fleet.py).
    Failure.REFUSED: Pace(times=4, part=1 / 4),
    Failure.PROTOCOL: Pace(times=5),
    # The port is held, mostly by our own stale session, which the relay drops after its ClientAlive time.
    Failure.FORWARD_BUSY: Pace(times=5),
    # The relay's administrator has to allow it.
    Failure.FORWARD_FORBIDDEN: Pace(times=10, least=15),
    Failure.AUTHENTICATION: Pace(least=HUMAN),
    Failure.HOST_KEY: Pace(least=HUMAN),
}

# Attempts that the relay never hears of, or its kernel answers for it.
CHEAP: dict[Failure, Share] = {
    # A packet into the dark each second is a byte rate that nobody notices, and a link comes back for one host alone.
    Failure.NETWORK: Share(outage=1 / 60, maximum=1 / 4),
    # A relay that boots comes back for all of its hosts at once: they must have spread out before sshd listens.
    Failure.CLOSED: Share(outage=1 / 5, maximum=1),
}


@dataclass(frozen=True)
class Limits:
    """A profile's [backoff], in seconds. The defaults stand here and nowhere else."""

    initial: float = 1  # the first envelope
    maximum: float = 60  # the highest envelope
    stable_after: float = 30  # a session that held for so long starts anew from `initial`
    return_after: float = 60  # an earlier relay has been well for so long when the tunnel goes back to it


def floor(failure: Failure, limits: Limits) -> float:
    """The shortest wait after this failure, in seconds: a part of the first envelope, or the class's own least."""
    pace = PACE[failure]
    return max(pace.least, min(limits.initial * pace.times, limits.maximum) * pace.part)


def envelope(failure: Failure, failures: int, limits: Limits) -> float:
    """The longest wait after so many earlier failures of this class, in seconds.

    `maximum` is the cap; only a class's `least` goes beyond it, doubled so that there is room for jitter.
    """
    pace = PACE[failure]
    doubled = limits.initial * pace.times * 2.0 ** min(failures, MOST_DOUBLINGS)
    return max(2 * pace.least, min(limits.maximum, doubled))


def patience(failure: Failure, outage: float, limits: Limits) -> float:
    """The longest wait after so many seconds without a session, in seconds, for what costs the relay nothing."""
    share = CHEAP[failure]
    return max(limits.initial, min(outage * share.outage, limits.maximum * share.maximum))


class Backoff:
    """Counts failures by class and says how long to wait after each."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._failures: dict[Failure, int] = {}
        self._redialled = -math.inf  # when a lost session was last dialled anew without a wait

    def wait(
        self, failure: Failure, *, lived: float | None, spent: float, outage: float, now: float, chance: float
    ) -> float:
        """Seconds to wait from `now` on.

        `lived` is how long the session was up, in seconds, 0 if it was lost before that, None when there was none.
        `spent` is how long the attempt took, `outage` how long there has been no session, both in seconds, and `now`
        is in seconds from anywhere. `chance` is uniform in [0, 1).
        """
        if lived is None and failure in CHEAP:
            return max(SHORTEST, self._drawn(failure, patience(failure, outage, self.limits), chance) - spent)
        if lived and lived >= self.limits.stable_after:
            self._failures.clear()
        count = self._failures.get(failure, 0)
        self._failures[failure] = count + 1
        if failure is Failure.NETWORK:  # a session was lost: the first time that is no reason to wait
            if not count and self._may_redial(now):
                return 0.0
            count = max(0, count - 1)
        return self._drawn(failure, envelope(failure, count, self.limits), chance)

    def clear(self, failure: Failure) -> None:
        """Forget the failures of this class: what they came from is over."""
        self._failures.pop(failure, None)

    def _may_redial(self, now: float) -> bool:
        """Whether a dial at once is due; a relay that drops us, or a network that flaps, gets few of them."""
        due = now - self._redialled >= max(self.limits.stable_after, self.limits.initial)
        if due:
            self._redialled = now
        return due

    def _drawn(self, failure: Failure, high: float, chance: float) -> float:
        low = floor(failure, self.limits)
        return low + chance * (high - low)
