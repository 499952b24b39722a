"""When a session is asked for a sign of life, and when it is doubted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.supervise.liveness import HURRIED_PATIENCE, LONGEST_PATIENCE, ROUND_TRIPS, SHORTEST_PATIENCE, Liveness

INTERVAL = 10.0


def test_it_asks_after_each_interval() -> None:
    """It does not ask before that, nor twice, and asks again one interval after the answer."""
    liveness = Liveness(INTERVAL, 0)
    assert liveness.deadline() == 10
    assert not liveness.tick(9.9, 0)
    assert liveness.tick(10, 0)
    assert not liveness.tick(10.1, 0)
    liveness.answered(10.04)
    assert liveness.deadline() == 20.04
    assert liveness.heard == 10.04
    assert not liveness.doubted


def test_silence_makes_doubt() -> None:
    """Without an answer or an acknowledgement in time the session is doubted, and `tick` is not needed any more."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 500)
    assert liveness.deadline() == 10 + SHORTEST_PATIENCE
    assert not liveness.tick(11, 500)
    assert liveness.doubted
    assert liveness.deadline() is None


def test_a_late_answer_ends_the_doubt() -> None:
    """The session is kept, and asked again after an interval."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 500)
    liveness.tick(11, 500)
    liveness.answered(12)
    assert not liveness.doubted
    assert liveness.deadline() == 22


def test_an_answer_behind_a_long_queue_is_waited_for() -> None:
    """While the other kernel acknowledges what we send, the session is not doubted; when that stops, it is."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 500)
    for second, acknowledged in ((11, 600), (12, 700), (13, 800)):
        assert not liveness.tick(second, acknowledged)
        assert not liveness.doubted
    liveness.tick(14, 800)
    assert liveness.doubted


def test_without_a_count_of_acknowledged_bytes_only_answers_count() -> None:
    """Through a jump host nobody can tell what the relay's kernel has received."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, None)
    liveness.tick(11, None)
    assert liveness.doubted


def test_a_nudge_asks_at_once_and_waits_shortly() -> None:
    """After a resume or a new address nobody waits for the interval."""
    liveness = Liveness(INTERVAL, 0)
    liveness.nudge(3, 500)
    assert liveness.deadline() == 3
    assert liveness.tick(3, 500)
    assert liveness.deadline() == 3 + HURRIED_PATIENCE
    liveness.tick(3 + HURRIED_PATIENCE, 500)
    assert liveness.doubted


def test_a_nudge_shortens_a_wait_that_has_begun() -> None:
    """A question that is under way is not asked again."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 500)
    liveness.nudge(10.1, 500)
    assert liveness.deadline() == 10.1 + HURRIED_PATIENCE
    liveness.answered(10.2)
    assert liveness.patience == SHORTEST_PATIENCE


def test_a_slow_line_gets_more_patience() -> None:
    """It gets three of its round trips, which are forgotten slowly, and never more than the longest patience."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 0)
    liveness.answered(10.9)
    assert round(liveness.patience, 6) == 2.7
    liveness.tick(20.9, 0)
    liveness.answered(21)
    assert round(liveness.patience, 6) == 2.025
    liveness.tick(31, 0)
    liveness.answered(33)
    assert liveness.patience == LONGEST_PATIENCE


def test_an_outage_that_ended_is_no_round_trip() -> None:
    """The next silence is noticed nearly as soon as before, and the outage does not count in the round trip."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 0)
    liveness.answered(10.04)
    liveness.tick(20.04, 0)
    liveness.tick(21.04, 0)
    liveness.answered(80)
    assert liveness.patience == ROUND_TRIPS * SHORTEST_PATIENCE
    assert round(liveness.rtt or 0, 6) == 0.04


def test_a_line_that_is_slower_than_the_patience_is_learnt() -> None:
    """It is doubted once, and then no more."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 0)
    liveness.tick(11, 0)
    assert liveness.doubted
    liveness.answered(12.5)
    liveness.tick(22.5, 0)
    assert (liveness.deadline() or 0) - 22.5 >= 2.5


def test_an_answer_to_nothing_is_news_all_the_same() -> None:
    """An answer without a question says that the session lives, and is no round trip."""
    liveness = Liveness(INTERVAL, 0)
    liveness.answered(5)
    assert liveness.rtt is None
    assert liveness.deadline() == 15


@given(st.lists(st.tuples(st.sampled_from(["tick", "answer", "nudge"]), st.floats(0.01, 30))))
def test_whatever_happens_a_silent_session_is_doubted_soon(steps: list[tuple[str, float]]) -> None:
    """From any state, an interval and twice the longest patience without a sign are enough."""
    liveness, now = Liveness(INTERVAL, 0), 0.0
    for step, seconds in steps:
        now += seconds
        if step == "tick":
            liveness.tick(now, 0)
        elif step == "answer":
            liveness.answered(now)
        else:
            liveness.nudge(now, 0)
    end = now + INTERVAL + 2 * LONGEST_PATIENCE
    while (due := liveness.deadline()) is not None:
        assert due <= end
        liveness.tick(max(due, now), 0)
    assert liveness.doubted


def test_the_seconds_of_patience() -> None:
    """An answer may take a second, a quarter after a nudge, three round trips on a slow line, and 5 s at most."""
    assert (SHORTEST_PATIENCE, HURRIED_PATIENCE, ROUND_TRIPS, LONGEST_PATIENCE) == (1, 0.25, 3, 5)


def test_the_round_trip_is_smoothed() -> None:
    """Each new one counts for an eighth (RFC 6298, 2.3)."""
    liveness = Liveness(INTERVAL, 0)
    liveness.tick(10, 0)
    liveness.answered(10.75)
    assert liveness.rtt == 0.75
    liveness.tick(20.75, 0)
    liveness.answered(21)
    assert liveness.rtt == 0.6875
