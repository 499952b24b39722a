"""How long to wait between sessions: a table by failure class, and a count that only a stable session clears.

A wait is drawn evenly between a floor and an envelope ("full jitter", so that a thousand hosts do not come back to a
restarted relay in step; the floor because an unbounded draw came as low as 0.13 s). The envelope doubles with each
failure of its class. Time and chance are arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunneld.core.lifecycle import Failure

# Doublings beyond this change nothing (2**32 s is 136 years) and would overflow a float one day.
MOST_DOUBLINGS = 32


@dataclass(frozen=True)
class Pace:
    """One failure class against the profile's figures: `times` the initial wait, and never under `least` seconds."""

    times: float = 1.0
    least: float = 0.0


# Seconds for what only a human mends. OpenSSH's PerSourcePenalties counts 5 s per refused login and locks the address
# out from 15 s on: once a minute stays below that for ever.
HUMAN = 60.0

PACE: dict[Failure, Pace] = {
    Failure.NETWORK: Pace(),
    # Something answers that is no SSH server of ours: often a relay that is booting, sometimes a wrong port.
    Failure.REFUSED: Pace(times=2),
    Failure.PROTOCOL: Pace(times=5),
    # The port is held, mostly by our own stale session, which the relay drops after its ClientAlive time.
    Failure.FORWARD_BUSY: Pace(times=5),
    # The relay's administrator has to allow it.
    Failure.FORWARD_FORBIDDEN: Pace(times=10, least=15),
    Failure.AUTHENTICATION: Pace(least=HUMAN),
    Failure.HOST_KEY: Pace(least=HUMAN),
}


@dataclass(frozen=True)
class Limits:
    """What the profile says, in seconds: the first envelope, the highest one, and how long a session proves itself."""

    initial: float = 1.0
    maximum: float = 60.0
    stable_after: float = 30.0


def floor(failure: Failure, limits: Limits) -> float:
    """The shortest wait after this failure, in seconds: half of the first envelope, or the class's own least."""
    pace = PACE[failure]
    return max(pace.least, min(limits.initial * pace.times, limits.maximum) / 2)


def envelope(failure: Failure, failures: int, limits: Limits) -> float:
    """The longest wait after so many earlier failures of this class, in seconds.

    `maximum` is the cap; only a class's `least` goes beyond it, doubled so that there is room for jitter.
    """
    pace = PACE[failure]
    doubled = limits.initial * pace.times * 2.0 ** min(failures, MOST_DOUBLINGS)
    return max(2 * pace.least, min(limits.maximum, doubled))


class Backoff:
    """Counts failures by class and says how long to wait after each."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._failures: dict[Failure, int] = {}

    def wait(self, failure: Failure, *, lived: float | None, chance: float) -> float:
        """Seconds to wait now.

        `lived` is how long the session was up, in seconds, None when it never was: a relay that accepts and drops
        keeps growing the wait. `chance` is uniform in [0, 1).
        """
        if lived is not None and lived >= self.limits.stable_after:
            self._failures.clear()
        count = self._failures.get(failure, 0)
        self._failures[failure] = count + 1
        low = floor(failure, self.limits)
        return low + chance * (envelope(failure, count, self.limits) - low)
