"""A canary: a forward tried end to end, what its one connection (a visit) went through, and what that means.

A visit begins on the relay's side, where the forward listens, comes out at this host like anybody's connection, and
goes on to the target. Both its ends are ours, so each step of the way is seen: the steps tell a dead target from a dead
tunnel. Nothing is sent: either the target speaks first, or that it accepts has to do.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from enum import Enum

# Seconds that a visit may stay where it is, by what it waits for.
OPEN_TIME = 10.0  # the relay, to connect to itself: microseconds, and a round trip for its word
ARRIVAL_TIME = 5.0  # the connection, to come out here: it comes right behind that word, in the same TCP stream
TARGET_TIME = 12.0  # the target, to accept; our end gives up by itself after 10 s
FIRST_WORDS_TIME = 2.0  # the target, to speak: sshd takes milliseconds, and its login grace is not for us

# Seconds from the moment in which a forward listens. Soon, so that "up" is proven; not at once, so that people who wait
# for the forward come first.
FIRST = 1.0
# Seconds after which a forward that seems broken is tried again. Not shorter: with ClientAliveInterval 10 sshd 9.2 asks
# a silent client after 20 s, and if the port should be a dead session's after all, each visit puts that off.
AGAIN = 30.0
# Visits that a session may lose in a row: one can be an accident of the relay's machine.
MOST_BROKEN = 2
# Of the interval: visits of a fleet whose relay was away spread out by themselves.
JITTER = 0.1


class Step(Enum):
    """What a visit can have behind it."""

    FORBIDDEN = "the relay lets us not connect on its side"
    TRIED = "a program of ours is about to connect on the relay"
    REFUSED = "nobody listens there"
    OPENED = "somebody listens there and has accepted"
    ARRIVED = "it came out at this host"
    FAILED = "the target does not accept"
    ACCEPTED = "the target has accepted"
    SPOKE = "the target's first bytes are back on the relay's side"
    ENDED = "the relay's side has seen its end"


class Verdict(str, Enum):
    PASSES = "passes"
    TARGET = "target"  # the tunnel is well, and what it leads to is not
    BROKEN = "broken"  # the relay has a listener whose connections do not come to us
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What a visit has shown; `text` says why, or what is noteworthy. `rtt` in seconds, `at` on the caller's clock."""

    verdict: Verdict
    text: str = ""
    is_final: bool = False  # no other visit of this session would find more
    rtt: float | None = None
    at: float = 0.0


IN_USE = Finding(Verdict.PASSES, "connections through it get answers")


class Visit:
    """The steps of one visit, noted by both its ends; `moved` is called after each."""

    def __init__(self, origin: str | None, moved: Callable[[], None]) -> None:
        """`origin` is the address on the relay that it comes from; None where a listener tells no origin."""
        self.origin = origin
        self.steps: set[Step] = set()
        self.why = ""  # of FORBIDDEN or FAILED
        self.is_mixed_up = False  # somebody came from the same place: which of the two is the canary?
        self._moved = moved

    def saw(self, step: Step, why: str = "") -> None:
        self.steps.add(step)
        self.why = self.why or why
        self._moved()


def patience(steps: Set[Step]) -> float:
    """Seconds to wait for a visit's next step."""
    if Step.ACCEPTED in steps:
        return FIRST_WORDS_TIME
    if Step.ARRIVED in steps:
        return TARGET_TIME
    return ARRIVAL_TIME if Step.OPENED in steps else OPEN_TIME


def judge(steps: Set[Step], why: str = "", *, waited: bool, speaks_first: bool = False) -> Finding | None:
    """What these steps mean; None: wait for more, unless all of `patience` has been `waited`.

    `speaks_first`: the target did so before, which makes its silence say something.
    """
    if Step.FAILED in steps:
        return Finding(Verdict.TARGET, why)
    if Step.FORBIDDEN in steps:
        return Finding(Verdict.UNKNOWN, why)
    if Step.REFUSED in steps:
        return Finding(Verdict.BROKEN, "nothing listens there on the relay any more")
    if Step.ARRIVED not in steps and steps & {Step.SPOKE, Step.ENDED}:
        return Finding(Verdict.BROKEN, "something else answers there on the relay")
    if Step.SPOKE in steps:
        return Finding(Verdict.PASSES)
    if Step.ENDED in steps and Step.ACCEPTED in steps:
        return Finding(Verdict.TARGET, "it accepts, and hangs up without a word")
    return _overdue(steps, speaks_first) if waited else None


def _overdue(steps: Set[Step], speaks_first: bool) -> Finding:
    if Step.ACCEPTED in steps:
        if speaks_first:
            return Finding(Verdict.TARGET, f"it accepts, and says nothing within {FIRST_WORDS_TIME:g} s as it used to")
        return Finding(Verdict.PASSES, "it accepts, and waits for the client to speak")
    if Step.ARRIVED in steps:
        return Finding(Verdict.TARGET, "it does not answer")
    if Step.OPENED in steps:
        return Finding(Verdict.BROKEN, "the relay accepts connections there that never come to this host")
    if Step.TRIED in steps:
        return Finding(Verdict.BROKEN, "the relay listens there and does not accept")
    return Finding(Verdict.UNKNOWN, "the relay does not say whether it could connect on its side")


class Beat:
    """When a forward of a session is visited, and what its findings add up to."""

    def __init__(self, now: float) -> None:
        self.due = now + FIRST
        self.broken = 0  # in a row
        self.is_new = True

    def note(self, finding: Finding, *, interval: float, chance: float) -> None:
        """Plan the next visit; `chance` is uniform in [0, 1)."""
        self.is_new = False
        self.broken = self.broken + 1 if finding.verdict is Verdict.BROKEN else 0
        self.due = finding.at + (AGAIN if self.broken else interval * (1 + JITTER * (2 * chance - 1)))

    def postpone(self, now: float) -> None:
        """Not now, but as soon as it makes sense."""
        self.due = now + FIRST

    def shorten(self, now: float, interval: float) -> None:
        """No later than an interval from now on, which was longer before."""
        self.due = min(self.due, now + interval * (1 + JITTER))

    @property
    def is_lost(self) -> bool:
        """Whether the session should be made anew."""
        return self.broken >= MOST_BROKEN
