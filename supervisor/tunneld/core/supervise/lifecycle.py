"""The states of a tunnel and the events that move it, as one table.

IDLE -> DIALING -> UP -> BACKOFF -> DIALING ... until a stop: DRAINING -> STOPPED. FAILED is for a fault of tunneld's
own: no failure of the network or of the relay ends a tunnel for good.
"""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """Where a tunnel stands. The values are those of the status JSON."""

    IDLE = "idle"  # not started
    DIALING = "dialing"  # connecting, logging in, asking for the forwards
    UP = "up"  # every required forward listens and the session answers
    BACKOFF = "backoff"  # waiting before the next dial
    DRAINING = "draining"  # stopping: the relay gets its ports back
    STOPPED = "stopped"  # the end, asked for
    FAILED = "failed"  # the end, by a fault of our own that no retry can mend


class Event(str, Enum):
    """What moves a tunnel from one state to the next."""

    START = "start"  # the tunnel runs from now on
    ESTABLISHED = "established"  # every required forward listens and the session answers
    LOST = "lost"  # the attempt or the session ended; it may be tried again
    RETRY = "retry"  # the backoff is over, or something changed that makes a dial worthwhile
    CRASHED = "crashed"  # a fault of our own that no retry can mend
    STOP = "stop"  # somebody asked for the end
    DRAINED = "drained"  # the session is closed


class ImpossibleEventError(Exception):
    """An event came that TRANSITIONS does not know in this state: a fault of ours."""


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.IDLE: {Event.START: State.DIALING, Event.STOP: State.STOPPED},
    State.DIALING: {
        Event.ESTABLISHED: State.UP,
        Event.LOST: State.BACKOFF,
        Event.CRASHED: State.FAILED,
        Event.STOP: State.DRAINING,
    },
    State.UP: {Event.LOST: State.BACKOFF, Event.CRASHED: State.FAILED, Event.STOP: State.DRAINING},
    State.BACKOFF: {Event.RETRY: State.DIALING, Event.STOP: State.DRAINING},
    State.DRAINING: {Event.DRAINED: State.STOPPED},
    State.STOPPED: {},
    State.FAILED: {Event.STOP: State.STOPPED},
}


def after(state: State, event: Event) -> State:
    """The state that follows when `event` comes in `state`.

    Raises:
        ImpossibleEventError: TRANSITIONS has no such move.
    """
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ImpossibleEventError(f"{event.value} cannot happen in state {state.value}") from None
