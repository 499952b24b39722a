"""A canary: one connection through a forward, end to end, that tells a dead target from a dead tunnel.

A visit is one such connection. It begins on the relay's side, where the forward listens, comes out at this host like
anybody's connection, and goes on to the target. Both of its ends are ours, so we see each step on the way, and know who
is to blame. A visit sends nothing: either the target speaks first, or it must suffice that the target accepts.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass
from enum import Enum

# Seconds that a visit waits for its next step.
OPEN_TIMEOUT = 10.0  # until the relay has connected to itself: microseconds, and a round trip until it tells us
ARRIVAL_TIMEOUT = 5.0  # until the connection comes out here: it follows that news in the same TCP stream
ACCEPT_TIMEOUT = 12.0  # until the target accepts; our end gives up by itself after 10 s
SPEECH_TIMEOUT = 2.0  # until the target speaks: sshd takes milliseconds, and its login grace is not for a visit

FIRST_VISIT_AFTER = 1.0
"""Seconds from the moment in which a forward listens: soon, so that "up" is proven, and not at once, so that people who
wait for the forward come first."""

BROKEN_VISIT_AFTER = 30.0
"""Seconds after which a forward that seems broken is visited again. Not sooner: with ClientAliveInterval 10, sshd 9.2
asks a silent client after 20 s. Where a dead session still holds the port, each visit puts that question off."""

MAX_BROKEN_VISITS = 2
"""Broken visits in a row after which the session is made anew: one may be an accident on the relay's machine."""

JITTER = 0.1
"""The part of the interval by which a visit may come sooner or later, so that the visits of a fleet spread out when its
relay comes back."""


class Step(Enum):
    """What can have happened to a visit."""

    FORBIDDEN = "the relay does not let us connect on its side"
    TRIED = "a program of ours is about to connect on the relay"
    REFUSED = "nobody listens there"
    OPENED = "somebody listens there and has accepted"
    ARRIVED = "the connection came out at this host"
    FAILED = "the target does not accept"
    ACCEPTED = "the target has accepted"
    SPOKE = "the target's first bytes are back on the relay's side"
    ENDED = "the relay's side has seen the end of the connection"


class Verdict(str, Enum):
    """What a visit says about its forward."""

    PASSES = "passes"
    TARGET = "target"  # the tunnel works, and the target does not
    BROKEN = "broken"  # connections to the forward on the relay do not come to us
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """What a visit has shown.

    `text` says why, or what is noteworthy. `rtt` is in seconds, and `at` is when the visit ended, in seconds on the
    caller's clock.
    """

    verdict: Verdict
    text: str = ""
    is_final: bool = False  # another visit in this session would find the same
    rtt: float | None = None
    at: float = 0.0


IN_USE = Finding(Verdict.PASSES, "connections through it get answers")


class Visit:
    """The steps of one visit, noted by both of its ends; `moved` is called after each step."""

    def __init__(self, origin: str | None, moved: Callable[[], None]) -> None:
        """`origin` is the address on the relay from which the visit comes; None where a listener tells no origin."""
        self.origin = origin
        self.steps: set[Step] = set()
        self.why = ""  # the reason of FORBIDDEN or FAILED; of several the first
        self.is_mixed_up = False  # somebody else came from the same address, so nobody knows whose connection this is
        self._moved = moved

    def saw(self, step: Step, why: str = "") -> None:
        """Note a step, and its reason if it has one."""
        self.steps.add(step)
        self.why = self.why or why
        self._moved()


def step_timeout(steps: Set[Step]) -> float:
    """Seconds to wait for the step that comes next."""
    if Step.ACCEPTED in steps:
        return SPEECH_TIMEOUT
    if Step.ARRIVED in steps:
        return ACCEPT_TIMEOUT
    return ARRIVAL_TIMEOUT if Step.OPENED in steps else OPEN_TIMEOUT


def judge(steps: Set[Step], why: str = "", *, waited: bool, speaks_first: bool = False) -> Finding | None:
    """What these steps mean; None when it takes another step to say so.

    Args:
        why: the reason that came with FORBIDDEN or FAILED.
        waited: the visit has waited for `step_timeout` seconds and no further step came: the answer is not None.
        speaks_first: the target spoke first at an earlier visit, so that its silence now is a fault.
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
            return Finding(Verdict.TARGET, f"it accepts, and says nothing within {SPEECH_TIMEOUT:g} s as it used to")
        return Finding(Verdict.PASSES, "it accepts, and waits for the client to speak")
    if Step.ARRIVED in steps:
        return Finding(Verdict.TARGET, "it does not answer")
    if Step.OPENED in steps:
        return Finding(Verdict.BROKEN, "the relay accepts connections there that never come to this host")
    if Step.TRIED in steps:
        return Finding(Verdict.BROKEN, "the relay listens there and does not accept")
    return Finding(Verdict.UNKNOWN, "the relay does not say whether it could connect on its side")


class Beat:
    """When to visit a forward of a session (`due`, in seconds), and whether its findings cost the session."""

    def __init__(self, now: float) -> None:
        self.due = now + FIRST_VISIT_AFTER
        self.broken = 0  # visits in a row
        self.is_new = True

    def note(self, finding: Finding, *, interval: float, chance: float) -> None:
        """Plan the next visit, about `interval` seconds after this one; `chance` is uniform in [0, 1)."""
        self.is_new = False
        self.broken = self.broken + 1 if finding.verdict is Verdict.BROKEN else 0
        self.due = finding.at + (BROKEN_VISIT_AFTER if self.broken else interval * (1 + JITTER * (2 * chance - 1)))

    def postpone(self, now: float) -> None:
        """Visit the forward a little later: at the moment a visit would show nothing."""
        self.due = now + FIRST_VISIT_AFTER

    def shorten(self, now: float, interval: float) -> None:
        """Follow an interval that has become shorter: visit the forward within that from now on."""
        self.due = min(self.due, now + interval * (1 + JITTER))

    @property
    def is_lost(self) -> bool:
        """Whether the session is to be made anew."""
        return self.broken >= MAX_BROKEN_VISITS
