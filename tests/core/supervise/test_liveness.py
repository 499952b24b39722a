"""When a session is asked for a sign of life, and when it is doubted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.liveness import HURRIED_PATIENCE, LONGEST_PATIENCE, ROUND_TRIPS, SHORTEST_PATIENCE, Liveness

INTERVAL = 10.0


def test_it_asks_after_each_interval() -> None:
    """Not before, not twice, and again one interval after the answer."""
    pulse = Liveness(INTERVAL, 0)
    assert pulse.deadline() == 10
    assert not pulse.tick(9.9, 0)
    assert pulse.tick(10, 0)
    assert not pulse.tick(10.1, 0)
    pulse.answered(10.04)
    assert pulse.deadline() == 20.04
    assert not pulse.doubted


def test_silence_makes_doubt() -> None:
    """No answer and no acknowledgement within the patience; the adapter is not called again until something happens."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 500)
    assert pulse.deadline() == 10 + SHORTEST_PATIENCE
    pulse.tick(11, 500)
    assert pulse.doubted
    assert pulse.deadline() is None


def test_a_late_answer_ends_the_doubt() -> None:
    """The session is kept, and asked again in its time."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 500)
    pulse.tick(11, 500)
    pulse.answered(12)
    assert not pulse.doubted
    assert pulse.deadline() == 22


def test_an_answer_behind_a_long_queue_is_waited_for() -> None:
    """While the other kernel acknowledges what we send, the way is open; when that stops, doubt begins."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 500)
    for second, acknowledged in ((11, 600), (12, 700), (13, 800)):
        pulse.tick(second, acknowledged)
        assert not pulse.doubted
    pulse.tick(14, 800)
    assert pulse.doubted


def test_without_a_count_of_acknowledged_bytes_only_answers_count() -> None:
    """Through a jump host nobody can tell what the relay's kernel has."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, None)
    pulse.tick(11, None)
    assert pulse.doubted


def test_a_nudge_asks_at_once_and_waits_shortly() -> None:
    """After a resume or a new address nobody waits for the interval."""
    pulse = Liveness(INTERVAL, 0)
    pulse.nudge(3, 500)
    assert pulse.deadline() == 3
    assert pulse.tick(3, 500)
    assert pulse.deadline() == 3 + HURRIED_PATIENCE
    pulse.tick(3 + HURRIED_PATIENCE, 500)
    assert pulse.doubted


def test_a_nudge_shortens_a_wait_that_has_begun() -> None:
    """The question that is under way will do."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 500)
    pulse.nudge(10.1, 500)
    assert pulse.deadline() == 10.1 + HURRIED_PATIENCE
    pulse.answered(10.2)
    assert pulse.patience == SHORTEST_PATIENCE


def test_a_slow_way_gets_more_patience() -> None:
    """Three of its round trips, forgotten slowly, and never more than the longest patience."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 0)
    pulse.answered(10.9)
    assert round(pulse.patience, 6) == 2.7
    pulse.tick(20.9, 0)
    pulse.answered(21)
    assert round(pulse.patience, 6) == 2.025
    pulse.tick(31, 0)
    pulse.answered(33)
    assert pulse.patience == LONGEST_PATIENCE


def test_an_outage_that_ended_is_no_round_trip() -> None:
    """The next silence is noticed nearly as soon, and the delay that is shown is the way's."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 0)
    pulse.answered(10.04)
    pulse.tick(20.04, 0)
    pulse.tick(21.04, 0)
    pulse.answered(80)
    assert pulse.patience == ROUND_TRIPS * SHORTEST_PATIENCE
    assert round(pulse.rtt or 0, 6) == 0.04


def test_a_way_that_is_slower_than_the_patience_is_learnt() -> None:
    """Doubted once, and then no more."""
    pulse = Liveness(INTERVAL, 0)
    pulse.tick(10, 0)
    pulse.tick(11, 0)
    assert pulse.doubted
    pulse.answered(12.5)
    pulse.tick(22.5, 0)
    assert (pulse.deadline() or 0) - 22.5 >= 2.5


def test_an_answer_to_nothing_is_news_all_the_same() -> None:
    """One that comes after its question was answered must not upset the clock."""
    pulse = Liveness(INTERVAL, 0)
    pulse.answered(5)
    assert pulse.rtt is None
    assert pulse.deadline() == 15


@given(st.lists(st.tuples(st.sampled_from(["tick", "answer", "nudge"]), st.floats(0.01, 30))))
def test_whatever_happens_a_silent_session_is_doubted_soon(steps: list[tuple[str, float]]) -> None:
    """From any state: an interval and the longest patience without a sign are enough."""
    pulse, now = Liveness(INTERVAL, 0), 0.0
    for step, seconds in steps:
        now += seconds
        if step == "tick":
            pulse.tick(now, 0)
        elif step == "answer":
            pulse.answered(now)
        else:
            pulse.nudge(now, 0)
    end = now + INTERVAL + 2 * LONGEST_PATIENCE
    while (due := pulse.deadline()) is not None:
        assert due <= end
        pulse.tick(max(due, now), 0)
    assert pulse.doubted
