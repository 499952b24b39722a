"""The states of a tunnel and the events that move it, as one table.

IDLE -> DIALING -> UP -> BACKOFF -> DIALING ..., DRAINING -> STOPPED, and FAILED where only a human can help.
"""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    IDLE = "idle"  # not started
    DIALING = "dialing"  # connecting, logging in, asking for the forwards
    UP = "up"  # every required forward listens and the session answers
    BACKOFF = "backoff"  # waiting before the next dial
    DRAINING = "draining"  # giving the relay's ports back
    STOPPED = "stopped"  # the end, asked for
    FAILED = "failed"  # the end, by a fault that no retry can mend


class Event(str, Enum):
    START = "start"
    ESTABLISHED = "established"  # every required forward listens and the session answers
    LOST = "lost"  # the attempt or the session ended; it may be tried again
    RETRY = "retry"  # the backoff is over, or something changed that makes a dial worthwhile
    REFUSED = "refused"  # a fault that no retry can mend
    STOP = "stop"
    DRAINED = "drained"


class Failure(str, Enum):
    """Why an attempt or a session ended; each class has its own backoff and its own words."""

    NETWORK = "network"  # unreachable, timed out, lost, no address for the name
    CLOSED = "closed"  # the relay's machine answers, and nothing listens: sshd is not up
    REFUSED = "refused"  # something answers there, but not an SSH server that lets us in the door
    AUTHENTICATION = "authentication"
    HOST_KEY = "host key"
    FORWARD_BUSY = "forward busy"
    FORWARD_FORBIDDEN = "forward forbidden"
    PROTOCOL = "protocol"


class ImpossibleEventError(Exception):
    """An event that its state does not know: a fault of ours."""


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.IDLE: {Event.START: State.DIALING, Event.STOP: State.STOPPED},
    State.DIALING: {
        Event.ESTABLISHED: State.UP,
        Event.LOST: State.BACKOFF,
        Event.REFUSED: State.FAILED,
        Event.STOP: State.DRAINING,
    },
    State.UP: {Event.LOST: State.BACKOFF, Event.REFUSED: State.FAILED, Event.STOP: State.DRAINING},
    State.BACKOFF: {Event.RETRY: State.DIALING, Event.STOP: State.DRAINING},
    State.DRAINING: {Event.DRAINED: State.STOPPED},
    State.STOPPED: {},
    State.FAILED: {Event.STOP: State.STOPPED},
}


def after(state: State, event: Event) -> State:
    """The state that follows.

    Raises:
        ImpossibleEventError: the table has no such move.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ImpossibleEventError(f"{event.value} cannot happen in state {state.value}") from None
