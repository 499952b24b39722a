"""A tunnel's states, clocks and counters, on a clock that is only a number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tunneld.core.supervise.backoff import Limits
from tunneld.core.supervise.failures import Failure
from tunneld.core.supervise.lifecycle import ImpossibleEventError, State
from tunneld.core.supervise.timeline import PastFailure, Timeline

LONGEST = 0.999999  # the dice that draw the longest wait


def started(limits: Limits | None = None) -> Timeline:
    """Held since 100, and in its first attempt since 110."""
    timeline = Timeline(limits or Limits(), 100)
    timeline.start(110)
    timeline.attempt(110)
    return timeline


def lost(
    timeline: Timeline, now: float, failure: Failure = Failure.NETWORK, *, logged_in: bool = False, silence: float = 0
) -> float:
    """The seconds to wait after this failure."""
    timeline.attempt_ended(logged_in=logged_in, silence=silence)
    return timeline.lost(failure, "why", now=now, chance=LONGEST)


def dialled_again(timeline: Timeline, now: float) -> None:
    timeline.backoff_ended(now)
    timeline.attempt(now)


def test_a_tunnel_that_comes_up() -> None:
    """Down since the daemon holds it; each state counts from its own beginning."""
    timeline = Timeline(Limits(), 100)
    assert (timeline.state, timeline.since, timeline.started, timeline.outage(103)) == (State.IDLE, 100, 100, 3)
    timeline.start(110)
    timeline.attempt(110)
    assert (timeline.state, timeline.since, timeline.attempts, timeline.sessions) == (State.DIALING, 110, 1, 0)
    assert timeline.dialling_for(112) == 2
    assert timeline.established(115) == 15
    assert (timeline.state, timeline.since, timeline.attempts, timeline.sessions) == (State.UP, 115, 1, 1)
    assert timeline.outage(120) == 0
    assert timeline.started == 100


def test_a_session_that_is_lost() -> None:
    """The outage counts from the loss, through every attempt, until the next session is up."""
    timeline = started()
    timeline.established(115)
    assert lost(timeline, 200, logged_in=True) == 0
    assert (timeline.state, timeline.since, timeline.outage(203)) == (State.BACKOFF, 200, 3)
    assert timeline.failure == PastFailure(Failure.NETWORK, "why", 200)
    dialled_again(timeline, 204)
    assert timeline.outage(206) == 6
    lost(timeline, 210)
    dialled_again(timeline, 211)
    assert timeline.established(220) == 20
    assert (timeline.attempts, timeline.sessions) == (3, 2)
    assert timeline.failure == PastFailure(Failure.NETWORK, "why", 210)


def test_an_outage_begins_with_the_silence() -> None:
    """A session that was silent for 40 s when it was given up was no use to anybody in those."""
    timeline = started()
    timeline.established(115)
    lost(timeline, 200, logged_in=True, silence=40)
    assert timeline.outage(200) == 40


def test_the_silence_of_a_session_that_never_came_up_moves_nothing() -> None:
    """The outage began before it."""
    timeline = started()
    lost(timeline, 200, logged_in=True, silence=40)
    assert timeline.outage(200) == 100


def test_an_attempt_without_a_login_waits_by_the_outage() -> None:
    """The relay has heard nothing of it, so its wait counts from its start, and grows with the outage alone."""
    timeline = started()
    assert lost(timeline, 110.4) == pytest.approx(0.6, abs=0.001)
    dialled_again(timeline, 1300)
    assert lost(timeline, 1302) == pytest.approx(15 - 2, abs=0.001)


def test_a_login_that_came_to_nothing_is_a_lost_session() -> None:
    """It costs the relay something each time, so the waits double, from none at all."""
    timeline, waits = started(), []
    for now in range(200, 204):
        waits.append(lost(timeline, now, logged_in=True))
        dialled_again(timeline, now)
    assert waits == pytest.approx([0, 1, 2, 4], abs=0.001)


def test_a_login_that_came_to_nothing_is_never_stable() -> None:
    """It was up for no time at all, though the profile may call each session stable."""
    timeline, waits = started(Limits(stable_after=0)), []
    for now in range(200, 204):
        waits.append(lost(timeline, now, Failure.REFUSED, logged_in=True))
        dialled_again(timeline, now)
    assert waits == pytest.approx([4, 8, 16, 32], abs=0.001)


def test_only_a_session_that_was_up_for_long_enough_is_stable() -> None:
    """Its time counts from its being up, not from the dial."""
    for up_at, wait in ((200, 0), (201, 1)):
        timeline = started(Limits(stable_after=30))
        lost(timeline, 120, logged_in=True)
        dialled_again(timeline, 121)
        timeline.established(up_at)
        assert lost(timeline, 230, logged_in=True) == pytest.approx(wait, abs=0.001)


def test_a_loss_that_is_known_to_be_over_waits_for_nothing_and_is_not_counted() -> None:
    """A second session is there already, or the profile has changed."""
    timeline = started()
    timeline.established(115)
    timeline.attempt_ended(logged_in=True, silence=0)
    assert timeline.lost(Failure.REFUSED, "why", now=200, chance=LONGEST, at_once=True) == 0
    assert timeline.failure == PastFailure(Failure.REFUSED, "why", 200)
    dialled_again(timeline, 200)
    assert lost(timeline, 201, Failure.REFUSED) == pytest.approx(4, abs=0.001)  # the first of its class


def test_a_renewed_session_is_no_failure() -> None:
    """What failed last stays what it was; the outage begins all the same."""
    timeline = started()
    timeline.established(115)
    timeline.attempt_ended(logged_in=True, silence=0)
    timeline.renewed(200)
    assert (timeline.state, timeline.failure, timeline.outage(201)) == (State.BACKOFF, None, 1)


def test_another_profile_forgets_what_was_counted() -> None:
    """Waits begin anew, by the new limits."""
    timeline = started()
    for now in range(200, 205):
        lost(timeline, now, Failure.REFUSED)
        dialled_again(timeline, now)
    timeline.adopt(Limits(initial=2))
    assert lost(timeline, 210, Failure.REFUSED) == pytest.approx(8, abs=0.001)


def test_the_next_try_is_told_while_it_is_waited_for() -> None:
    """Before and after that it is None."""
    timeline = started()
    assert timeline.next_try is None
    lost(timeline, 120)
    timeline.backs_off(7, 120)
    assert timeline.next_try == 127
    dialled_again(timeline, 127)
    assert timeline.next_try is None


def test_a_forward_that_is_awaited_is_a_failure_of_a_session_that_lives() -> None:
    """The state stays, and what is tried next is the request; it is over with the session's coming up, or its loss."""
    for over in (lambda timeline: timeline.established(130), lambda timeline: lost(timeline, 130)):
        timeline = started()
        timeline.forward_awaited(Failure.FORWARD_BUSY, "taken", wait=5, now=120)
        assert (timeline.state, timeline.since, timeline.next_try) == (State.DIALING, 110, 125)
        assert timeline.failure == PastFailure(Failure.FORWARD_BUSY, "taken", 120)
        over(timeline)
        assert timeline.next_try is None


@pytest.mark.parametrize("failure", list(Failure))
def test_a_changed_network_ends_only_waits_that_cost_the_relay_nothing(failure: Failure) -> None:
    """A relay that turned us away would count another attempt."""
    timeline = started()
    lost(timeline, 120, failure)
    assert timeline.network_changed() == failure.rule.is_cheap


def test_a_changed_network_forgets_the_networks_failures() -> None:
    """The next loss counts as the first again; it waits, since a dial at once has just been given."""
    timeline = started()
    for now in range(200, 204):
        lost(timeline, now, logged_in=True)
        assert timeline.network_changed()
        dialled_again(timeline, now)
    assert lost(timeline, 204, logged_in=True) == pytest.approx(1, abs=0.001)


def test_a_changed_network_is_nothing_to_a_tunnel_that_does_not_wait() -> None:
    """Its session finds out for itself."""
    timeline = Timeline(Limits(), 100)
    assert not timeline.network_changed()
    timeline = started()
    lost(timeline, 120)
    dialled_again(timeline, 121)
    assert not timeline.network_changed()
    timeline.attempt_ended(logged_in=True, silence=0)
    timeline.renewed(122)
    timeline.failure = None
    assert not timeline.network_changed()


def up(timeline: Timeline) -> None:
    timeline.established(115)


def backing_off(timeline: Timeline) -> None:
    lost(timeline, 115)
    timeline.backs_off(5, 115)


def dialling(timeline: Timeline) -> None:
    pass


STAGES = [dialling, up, backing_off]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_is_news_once(stage: Callable[[Timeline], None]) -> None:
    """It drains, then it is stopped; what comes later changes nothing."""
    timeline = started()
    stage(timeline)
    assert not timeline.is_stopping
    assert timeline.stop(130)
    assert (timeline.state, timeline.is_stopping, timeline.stop(131)) == (State.DRAINING, True, False)
    assert timeline.drained(140)
    assert (timeline.state, timeline.since, timeline.is_stopping, timeline.next_try) == (State.STOPPED, 140, True, None)
    assert not timeline.stop(150)
    assert timeline.since == 140


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancelled_tunnel_is_stopped_without_a_stop(stage: Callable[[Timeline], None]) -> None:
    """Nobody asked for a stop, and yet the tunnel has given everything back."""
    timeline = started()
    stage(timeline)
    assert timeline.drained(140)
    assert timeline.state is State.STOPPED


def test_a_stop_before_the_start() -> None:
    """There is nothing to drain."""
    timeline = Timeline(Limits(), 100)
    assert timeline.stop(101)
    assert (timeline.state, timeline.is_stopping) == (State.STOPPED, True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_crash_is_the_end(stage: Callable[[Timeline], None]) -> None:
    """A fault of ours has no class, and a stop that comes later is not news."""
    timeline = started()
    stage(timeline)
    timeline.crashed("a bug", 130)
    assert timeline.state is State.FAILED
    assert timeline.failure == PastFailure(None, "a bug", 130)
    assert not timeline.stop(131)
    assert not timeline.network_changed()


def test_a_crashed_tunnel_stays_failed_when_it_has_drained() -> None:
    """Whoever watches the process sees the difference."""
    timeline = started()
    timeline.crashed("a bug", 130)
    assert not timeline.drained(131)
    assert timeline.state is State.FAILED
    assert timeline.since == 130


def test_a_crash_while_stopping_ends_as_a_stop() -> None:
    """The end was asked for; the fault is told all the same."""
    timeline = started()
    timeline.stop(120)
    timeline.crashed("a bug", 130)
    assert timeline.drained(131)
    assert timeline.failure == PastFailure(None, "a bug", 130)


def test_an_impossible_step_is_our_bug() -> None:
    """The table of states has no move from idle to up."""
    with pytest.raises(ImpossibleEventError):
        Timeline(Limits(), 100).established(101)
