"""What has happened to one tunnel, and when: its state, its clocks and its counters, without any doing.

The tunnel (tunnel/tunnel.py) dials, waits and logs; it notes each step here, and reads here how long to wait. Times are
seconds of one steady clock, passed in as `now`; durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunneld.core.supervise.backoff import Backoff, Limits
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import Event, State, after

ENDED = frozenset({State.STOPPED, State.FAILED})


@dataclass(frozen=True)
class PastFailure:
    """One failure: its class (None for a fault of tunneld's own), its words for a person, and when it happened."""

    failure: Failure | None
    text: str
    at: float


class Timeline:
    """One tunnel's, from the moment in which the daemon begins to hold it."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.state = State.IDLE
        self.since = now  # when the state was entered
        self.started = now
        self.attempts = 0  # sessions tried
        self.sessions = 0  # of those: the ones that came up
        self.failure: PastFailure | None = None  # the last one, also after it was overcome
        self.next_try: float | None = None  # when the next dial, or the next request for a forward, is due
        self._backoff = Backoff(limits)
        self._dialled = now  # when the attempt that is under way began
        self._down_since = now  # when the last session that was up stopped answering
        self._logged_in = False  # whether the relay let the last attempt in
        self._silence = 0.0  # how long the last session had not answered when it ended

    def adopt(self, limits: Limits) -> None:
        """Wait by these limits from now on, and forget the failures that were counted by the old ones."""
        self._backoff = Backoff(limits)

    # Questions

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for, or has happened."""
        return self.state in {State.DRAINING, State.STOPPED}

    @property
    def is_up(self) -> bool:
        """Whether the tunnel has a session that is up."""
        return self.state is State.UP

    def outage(self, now: float) -> float:
        """Seconds for which there has been no session that was up and answered; 0 while one is up."""
        return 0.0 if self.is_up else now - self._down_since

    def dialling_for(self, now: float) -> float:
        """Seconds since the attempt that is under way began."""
        return now - self._dialled

    # Steps

    def start(self, now: float) -> None:
        """The tunnel runs from now on."""
        self._move(Event.START, now)

    def attempt(self, now: float) -> None:
        """An attempt begins, by a dial or over a second session's connection."""
        self.attempts += 1
        self._dialled = now

    def forward_awaited(self, failure: Failure, text: str, *, wait: float, now: float) -> None:
        """A forward that the session needs was refused, and is asked for again after `wait`; the session lives on."""
        self.failure, self.next_try = PastFailure(failure, text, now), now + wait

    def established(self, now: float) -> float:
        """The session is up. Returns for how many seconds the tunnel was down."""
        self._move(Event.ESTABLISHED, now)
        self.next_try = None
        self.sessions += 1
        return now - self._down_since

    def attempt_ended(self, *, logged_in: bool, silence: float) -> None:
        """The attempt is over. `silence` is how long the relay had not answered by then; 0 if no answer was overdue."""
        self._logged_in, self._silence = logged_in, silence

    def lost(self, failure: Failure, text: str, *, now: float, chance: float, at_once: bool = False) -> float:
        """The attempt failed, or the session was lost. Returns how long to wait until the next dial.

        Args:
            failure, text: why.
            chance: drawn evenly from [0, 1).
            at_once: do not wait, since something better than waiting is known; the backoff does not count it.
        """
        wait = 0.0 if at_once else self._wait(failure, now, chance)
        self._leave(now)
        self.failure = PastFailure(failure, text, now)
        return wait

    def renewed(self, now: float) -> None:
        """The session, or the attempt, is given up for a new one; nobody has failed."""
        self._leave(now)

    def backs_off(self, seconds: float, now: float) -> None:
        """The wait for the next dial begins."""
        self.next_try = now + seconds

    def backoff_ended(self, now: float) -> None:
        """The next dial is due: the wait is over, or something has made it pointless."""
        self.next_try = None
        self._move(Event.RETRY, now)

    def network_changed(self) -> bool:
        """Whether to dial at once, since that costs the relay nothing. If so, failures of the network are forgotten."""
        failure = self.failure.failure if self.failure else None
        if self.state is not State.BACKOFF or failure is None or not failure.rule.is_cheap:
            return False
        self._backoff.clear(Failure.NETWORK)
        return True

    def stop(self, now: float) -> bool:
        """Somebody asks for the end. Returns whether that is news: the tunnel was neither stopping nor at its end."""
        if self.is_stopping or self.state in ENDED:
            return False
        self._move(Event.STOP, now)
        return True

    def drained(self, now: float) -> bool:
        """The tunnel has given everything back. Returns whether it is stopped by that, rather than failed."""
        self.next_try = None
        self.stop(now)  # nobody may have asked: it was cancelled
        if self.state is State.DRAINING:
            self._move(Event.DRAINED, now)
        return self.state is State.STOPPED

    def crashed(self, text: str, now: float) -> None:
        """A fault of tunneld's own ended the tunnel. One that was stopping anyway still ends as stopped."""
        if self.state is State.BACKOFF:
            self._move(Event.RETRY, now)
        if self.state in {State.DIALING, State.UP}:
            self._move(Event.CRASHED, now)
        self.failure = PastFailure(None, text, now)

    def _wait(self, failure: Failure, now: float, chance: float) -> float:
        return self._backoff.wait(
            failure,
            lived=now - self.since if self.is_up else 0.0 if self._logged_in else None,
            spent=now - self._dialled,
            outage=self.outage(now),
            now=now,
            chance=chance,
        )

    def _leave(self, now: float) -> None:
        """From DIALING or UP to BACKOFF. An outage has begun when the session fell silent, not when it was given up."""
        if self.is_up:
            self._down_since = now - self._silence
        self.next_try = None
        self._move(Event.LOST, now)

    def _move(self, event: Event, now: float) -> None:
        self.state = after(self.state, event)
        self.since = now
