"""Which of several relays is dialled next, and when an earlier one is asked whether it is well again.

Relays are numbered from 0 in their order of preference. Each has a backoff of its own, which says how long to wait
after a failure there; one that is away delays no other. Times are seconds, `now` on any steady clock, `chance` uniform
in [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

# Seconds between two questions to a relay that stays away: a login each, which its administrator reads in a log.
RARELY = 900.0

# Each pause is drawn around its length, so that a fleet does not come back to a mended relay in step.
SPREAD = (0.5, 1.5)


@dataclass(frozen=True)
class Question:
    """To which relay, and when, the next question goes."""

    relay: int
    due: float


class Failover:
    """`current` is the relay that is dialled, or that has the session. Begins with the first."""

    def __init__(self, count: int, return_after: float) -> None:
        """An earlier relay that has been well for `return_after` seconds gets the tunnel back."""
        self.return_after = return_after
        self.current = 0
        self._free = [float("-inf")] * count  # when each may be dialled again
        self._asked = [float("-inf")] * count  # when each is asked again, while a later one has the session
        self._unwell = [0] * count  # faults in a row: questions without an answer, sessions that did not last
        self._stayed = float("-inf")  # when a lost session's relay was last given another chance

    def ended(self, now: float, *, wait: float, lived: float | None) -> float:
        """The dial of `current`, or its session after `lived` seconds, has ended; `wait` is what its backoff says.

        Seconds until the next dial. It goes to `current`, which is now the same once more if its session was lost, else
        the next in order that may be dialled, else the one that may be dialled soonest.
        """
        here = self.current
        self._free[here] = now + wait
        if lived is not None:
            self._unwell[here] = 0 if lived >= self.return_after else self._unwell[here] + 1
            if now - self._stayed >= self.return_after:  # a relay that accepts and drops gets one chance, not many
                self._stayed = now
                return wait
        others = [*range(here + 1, len(self._free)), *range(here + 1)]
        self.current = next(
            (each for each in others if self._free[each] <= now), min(others, key=self._free.__getitem__)
        )
        return max(0.0, self._free[self.current] - now)

    def afresh(self) -> None:
        """The network changed, and old failures mean nothing: from the first on, at once."""
        self.current = 0
        self._free = [float("-inf")] * len(self._free)

    def established(self, now: float, *, chance: float) -> None:
        """`current` has a session; the earlier ones have an appointment from now on, if they had none."""
        for relay in range(self.current):
            if self._asked[relay] <= now:
                self._asked[relay] = max(self._free[relay], now + self._pause(relay, chance))

    def question(self) -> Question | None:
        """The next question; None where nothing is better than what we have."""
        earlier = range(self.current)
        relay = min(earlier, key=self._asked.__getitem__, default=None)
        return None if relay is None else Question(relay, self._asked[relay])

    def unwell(self, relay: int, now: float, *, wait: float, chance: float) -> None:
        """It did not answer, or not for long enough; `wait` is what its backoff says."""
        self._unwell[relay] += 1
        self._asked[relay] = now + max(wait, self._pause(relay, chance))

    def returned(self, relay: int) -> None:
        """The session has moved to it."""
        self.current = relay

    def _pause(self, relay: int, chance: float) -> float:
        least, most = SPREAD
        longest = max(RARELY, self.return_after)
        doubled = min(self.return_after * 2.0 ** min(self._unwell[relay], 32), longest)
        return doubled * (least + chance * (most - least))
