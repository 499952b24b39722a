"""Every state and every event, walked from the table that the daemon runs on."""

from __future__ import annotations

import itertools

import pytest

from tunneld.core.supervise.lifecycle import TRANSITIONS, Event, ImpossibleEventError, State, after

ENDS = {State.STOPPED}


@pytest.mark.parametrize(("state", "event"), [*itertools.product(State, Event)])
def test_each_event_moves_as_the_table_says_or_is_our_bug(state: State, event: Event) -> None:
    """An event either has a row in the table, and its state follows, or it raises and names both."""
    if event in TRANSITIONS[state]:
        assert after(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(ImpossibleEventError, match=f"{event.value} cannot happen in state {state.value}"):
            after(state, event)


def test_every_state_has_a_row() -> None:
    """A state without a row would raise KeyError instead of naming the fault."""
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", [state for state in State if state not in ENDS and state is not State.DRAINING])
def test_every_living_state_can_be_stopped(state: State) -> None:
    """Stop is asked at any time; only a tunnel that is stopping or stopped does not know it."""
    assert after(state, Event.STOP) in {State.DRAINING, State.STOPPED}


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_reached_from_the_start(state: State) -> None:
    """A state that no path reaches would be dead text."""
    reached = {State.IDLE}
    for _ in State:
        reached |= {then for known in reached for then in TRANSITIONS[known].values()}
    assert state in reached


@pytest.mark.parametrize("state", [state for state in State if state not in ENDS])
def test_every_state_leads_to_an_end(state: State) -> None:
    """From wherever a tunnel is, some path ends in stopped: none can be caught for ever."""
    reached = {state}
    for _ in State:
        reached |= {then for known in reached for then in TRANSITIONS[known].values()}
    assert reached & ENDS


def test_a_stopped_tunnel_stays_stopped() -> None:
    """No event leads on from there: a new run is a new tunnel."""
    assert TRANSITIONS[State.STOPPED] == {}
