"""The classes of failure, and one table of what follows from each: the waits, the advice, whether a person is needed.

The words of one concrete error, and its class, come from ssh/connect/failure.py. The advice here is printed below those
words, so it says what they do not: what tunneld does by itself, and what a person can do if that is not enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Pace:
    """How the waits of one failure class relate to the profile's [backoff].

    The longest first wait is `times` the profile's `initial`. No wait is shorter than `part` of that, nor than `least`
    seconds.
    """

    times: float = 1.0
    part: float = 1 / 2
    least: float = 0.0


@dataclass(frozen=True)
class Share:
    """For attempts that cost the relay nothing: the longest wait as a share of the outage so far.

    `maximum` is the cap of that wait, as a share of the profile's `maximum`.
    """

    outage: float
    maximum: float


@dataclass(frozen=True)
class FailureRule:
    """What follows from one class of failure.

    `advice` is for the person who reads the status. `share` is None where an attempt costs the relay an answer.
    `needs_person` says that only a person can mend it; logs and status then say so louder than that a link is down.
    """

    pace: Pace
    advice: str
    share: Share | None = None
    needs_person: bool = False

    @property
    def is_cheap(self) -> bool:
        """Whether the relay never hears of an attempt, or its kernel alone answers it."""
        return self.share is not None


class Failure(str, Enum):
    """Why an attempt, a session or a forward ended. `RULES` has what follows from each."""

    NETWORK = "network"  # unreachable, timed out, lost, no address for the name
    CLOSED = "closed"  # the relay's machine answers, and nothing listens: sshd is not up
    REFUSED = "refused"  # something answers there, and ends the connection before the login
    AUTHENTICATION = "authentication"
    HOST_KEY = "host key"
    FORWARD_BUSY = "forward busy"
    FORWARD_FORBIDDEN = "forward forbidden"
    PROTOCOL = "protocol"

    @property
    def rule(self) -> FailureRule:
        """The row of this class in `RULES`."""
        return RULES[self]


# Seconds for what only a person mends. OpenSSH's PerSourcePenalties counts 5 s for each refused login and locks the
# address out from 15 s on: one login a minute stays below that for ever.
LEAST_FOR_PERSON = 60.0

RULES: dict[Failure, FailureRule] = {
    Failure.NETWORK: FailureRule(
        Pace(),
        "nothing at first: tunneld dials again by itself; if this lasts, try ssh to the relay from here",
        # One packet a second costs nobody anything, and when a link comes back, only this one host comes back with it.
        share=Share(outage=1 / 60, maximum=1 / 4),
    ),
    Failure.CLOSED: FailureRule(
        Pace(),
        "nothing at first, since the relay may be restarting: tunneld dials again by itself; if this lasts, start sshd "
        "on the relay, or correct relay.port in the profile",
        # A relay that boots comes back for all of its hosts at once: they must have spread out before sshd listens.
        share=Share(outage=1 / 5, maximum=1),
    ),
    Failure.REFUSED: FailureRule(
        # A relay with too many logins under way, a penalty, sometimes a wrong port. A fleet that is turned away in one
        # second comes back spread over three (bench/fleet.py).
        Pace(times=4, part=1 / 4),
        "nothing at first: tunneld dials again by itself; if this lasts, try ssh to the relay from here and from "
        "another host",
    ),
    Failure.AUTHENTICATION: FailureRule(
        Pace(least=LEAST_FOR_PERSON),
        "mend that, on the relay or on this host; tunneld logs in again every one to two minutes, without a restart",
        needs_person=True,
    ),
    Failure.HOST_KEY: FailureRule(
        Pace(least=LEAST_FOR_PERSON),
        "trust no key that you have not compared by another way (the relay's console, its owner); until the key fits "
        "tunneld sends the relay nothing, and looks again every one to two minutes",
        needs_person=True,
    ),
    Failure.FORWARD_BUSY: FailureRule(
        # Mostly our own stale session holds the port, until the relay drops it after its ClientAlive time.
        Pace(times=5),
        "end what holds the port, or give the forward another one; tunneld asks for it again by itself",
    ),
    Failure.FORWARD_FORBIDDEN: FailureRule(
        Pace(times=10, least=15),  # the relay's administrator has to allow it
        "ask the relay's owner to allow it, or give the forward another address; tunneld asks for it again by itself",
    ),
    Failure.PROTOCOL: FailureRule(
        Pace(times=5),
        "compare both sides' logs and versions; tunneld dials again by itself",
    ),
}
