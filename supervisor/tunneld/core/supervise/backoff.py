"""How long to wait before the next dial, by the class of the failure (failures.py) and the profile's [backoff].

What costs the relay nothing (the relay is away, or nothing listens there) is tried again in a rhythm that follows the
outage: every second at first, then in proportion, so that whoever waits adds a fixed share to the outage. What costs
the relay an answer doubles with each failure of its class. A wait is drawn evenly between a floor and an envelope
("full jitter", so that a thousand hosts do not come back to a restarted relay in step). The floor is there because
without it a wait was once drawn as short as 0.13 s. Time and chance are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunneld.core.supervise.failures import Failure

# Doublings beyond this change nothing (2**32 s is 136 years) and would overflow a float one day.
MOST_DOUBLINGS = 32

# Seconds from the end of an attempt to the next, however long the attempt took: a fault that comes back at once (no
# route, no file descriptor left) must not become a busy loop.
SHORTEST_WAIT = 0.3


@dataclass(frozen=True)
class Limits:
    """A profile's [backoff], in seconds. The defaults stand here and nowhere else."""

    initial: float = 1  # the longest first wait
    maximum: float = 60  # the longest wait of all
    stable_after: float = 30  # after a session that held for so long, waits begin at `initial` again
    return_after: float = 60  # the tunnel goes back to an earlier relay that has been healthy for so long


def floor(failure: Failure, limits: Limits) -> float:
    """The shortest wait after this failure, in seconds: a part of the first envelope, or the class's own least."""
    pace = failure.rule.pace
    return max(pace.least, min(limits.initial * pace.times, limits.maximum) * pace.part)


def envelope(failure: Failure, failures: int, limits: Limits) -> float:
    """The longest wait in seconds, after `failures` earlier failures of this class.

    The profile's `maximum` is the cap. Only a class's `least` goes beyond that, doubled to leave room for jitter.
    """
    pace = failure.rule.pace
    doubled = limits.initial * pace.times * 2.0 ** min(failures, MOST_DOUBLINGS)
    return max(2 * pace.least, min(limits.maximum, doubled))


def outage_envelope(failure: Failure, outage: float, limits: Limits) -> float:
    """The longest wait in seconds after `outage` seconds without a session, if an attempt costs the relay nothing."""
    share = failure.rule.share
    assert share is not None, failure
    return max(limits.initial, min(outage * share.outage, limits.maximum * share.maximum))


class Backoff:
    """Counts a tunnel's failures by class, and says how long to wait after each."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._failures: dict[Failure, int] = {}
        self._redialled = -math.inf  # when a lost session was last dialled again without a wait

    def wait(
        self, failure: Failure, *, lived: float | None, spent: float, outage: float, now: float, chance: float
    ) -> float:
        """Count this failure, and return the seconds to wait from `now` on.

        Args:
            lived: seconds that the session was up; 0 if it was lost before it was up; None without a login.
            spent: seconds that the attempt took.
            outage: seconds without a session so far.
            now: seconds on any steady clock.
            chance: drawn evenly from [0, 1).
        """
        if lived is None and failure.rule.is_cheap:
            longest = outage_envelope(failure, outage, self.limits)
            return max(SHORTEST_WAIT, self._drawn(failure, longest, chance) - spent)
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
        """Forget the failures of this class, because their cause is over."""
        self._failures.pop(failure, None)

    def _may_redial(self, now: float) -> bool:
        """Whether to dial at once now. A relay that drops us, or a network that flaps, gets few such dials."""
        due = now - self._redialled >= max(self.limits.stable_after, self.limits.initial)
        if due:
            self._redialled = now
        return due

    def _drawn(self, failure: Failure, high: float, chance: float) -> float:
        low = floor(failure, self.limits)
        return low + chance * (high - low)
