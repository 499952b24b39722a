"""Which relay is next, as a conversation with a clock that the test holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.failover import RARELY, Failover, Question

FIRST, SECOND, THIRD = range(3)
NEVER_UP = None

waits = st.floats(0, 300)
chances = st.floats(0, 1, exclude_max=True)
ends = st.lists(st.tuples(waits, st.none() | st.floats(0, 1000)), max_size=50)


def asked(failover: Failover) -> Question:
    question = failover.question()
    assert question is not None
    return question


def on_the_second(*, count: int = 2) -> Failover:
    """The first was away at 1000 s, and the second has the session since then."""
    failover = Failover(count, return_after=60)
    failover.ended(1000, wait=1, lived=NEVER_UP)
    failover.established(1000, chance=0.5)
    return failover


def test_one_relay_is_simply_waited_for() -> None:
    """As if there were no choice, for there is none."""
    failover = Failover(1, return_after=60)
    assert [failover.ended(now, wait=7, lived=lived) for now, lived in ((0, None), (10, 3), (20, None))] == [7, 7, 7]
    failover.established(30, chance=0)
    assert (failover.current, failover.question()) == (FIRST, None)


def test_each_in_order_and_then_the_one_whose_wait_is_over_first() -> None:
    """A round costs no waiting; after it, each relay's own backoff says when."""
    failover = Failover(3, return_after=60)
    seen = []
    for wait in (5, 2, 9, 4):
        pause = failover.ended(100, wait=wait, lived=NEVER_UP)
        seen.append((failover.current, pause))
    assert seen == [(SECOND, 0), (THIRD, 0), (SECOND, 2), (SECOND, 4)]


def test_a_lost_session_gets_its_own_relay_once_more() -> None:
    """Mostly it was the session that broke, not the relay."""
    failover = Failover(2, return_after=60)
    assert (failover.ended(1000, wait=0, lived=500), failover.current) == (0, FIRST)
    assert (failover.ended(1001, wait=1, lived=NEVER_UP), failover.current) == (0, SECOND)


def test_a_relay_that_accepts_and_drops_does_not_keep_us() -> None:
    """The chance after a lost session is given once a minute."""
    failover = Failover(2, return_after=60)
    assert (failover.ended(1000, wait=1, lived=1), failover.current) == (1, FIRST)
    assert (failover.ended(1002, wait=2, lived=1), failover.current) == (0, SECOND)


def test_a_relay_that_refuses_our_key_delays_no_other() -> None:
    """Its minute is its own."""
    failover = Failover(2, return_after=60)
    failover.ended(0, wait=90, lived=NEVER_UP)
    assert [(failover.ended(now, wait=1, lived=NEVER_UP), failover.current) for now in (1, 5, 9)] == [(1, SECOND)] * 3
    assert (failover.ended(95, wait=1, lived=NEVER_UP), failover.current) == (0, FIRST)


def test_a_changed_network_begins_with_the_first() -> None:
    """What failed where we were before says nothing about here."""
    failover = Failover(3, return_after=60)
    for _ in range(2):
        failover.ended(0, wait=90, lived=NEVER_UP)
    failover.afresh()
    assert failover.current == FIRST
    assert (failover.ended(1, wait=1, lived=NEVER_UP), failover.current) == (0, SECOND)


def test_the_first_is_asked_after_a_while_and_gets_the_session_back() -> None:
    """Once it has it, nothing is better."""
    failover = on_the_second()
    assert asked(failover) == Question(FIRST, due=1060)
    failover.returned(FIRST)
    assert (failover.current, failover.question()) == (FIRST, None)


def test_a_relay_that_stays_away_is_asked_ever_more_rarely() -> None:
    """Twice as long each time, up to a quarter of an hour."""
    failover = on_the_second()
    pauses = []
    for _ in range(7):
        now = asked(failover).due
        failover.unwell(FIRST, now, wait=1, chance=0.5)
        pauses.append(asked(failover).due - now)
    assert pauses == [120, 240, 480, RARELY, RARELY, RARELY, RARELY]


def test_a_question_waits_as_long_as_its_failure_wants() -> None:
    """A refused key is not offered again within its minute, however short the profile's pause is."""
    failover = Failover(2, return_after=1)
    failover.ended(0, wait=90, lived=NEVER_UP)
    failover.established(1, chance=0)
    assert asked(failover).due == 90
    failover.unwell(FIRST, 90, wait=70, chance=0)
    assert asked(failover).due == 160


def test_a_new_session_on_the_same_relay_keeps_the_appointment() -> None:
    """Else a spare relay that drops us every minute would never be left."""
    failover = on_the_second()
    failover.ended(1050, wait=1, lived=50)
    failover.established(1052, chance=0.5)
    assert asked(failover) == Question(FIRST, due=1060)


def test_of_several_earlier_relays_the_one_that_is_due_is_asked() -> None:
    """The preferred one where both are."""
    failover = Failover(3, return_after=60)
    for _ in range(2):
        failover.ended(1000, wait=1, lived=NEVER_UP)
    failover.established(1000, chance=0.5)
    assert asked(failover) == Question(FIRST, due=1060)
    failover.unwell(FIRST, 1060, wait=1, chance=0.5)
    assert asked(failover) == Question(SECOND, due=1060)


def test_a_relay_that_takes_the_session_back_and_loses_it_is_trusted_later() -> None:
    """Every return breaks the connections through the tunnel."""
    failover = on_the_second()
    failover.returned(FIRST)
    failover.ended(1200, wait=0, lived=10)
    failover.ended(1210, wait=0, lived=5)
    failover.established(1210, chance=0.5)
    assert asked(failover).due == 1210 + 240


def test_a_relay_whose_session_lasted_is_forgiven() -> None:
    """What it did before does not count any more."""
    failover = on_the_second()
    for now in (1060, 1200, 1500):
        failover.unwell(FIRST, now, wait=1, chance=0.5)
    failover.returned(FIRST)
    failover.ended(9000, wait=0, lived=3600)
    failover.ended(9000, wait=1, lived=NEVER_UP)
    failover.established(9000, chance=0.5)
    assert asked(failover).due == 9060


def test_a_fleet_does_not_return_in_step() -> None:
    """A thousand hosts that lost a relay at one moment ask it over a minute."""
    dues = []
    for host in range(1000):
        failover = Failover(2, return_after=60)
        failover.ended(0, wait=0, lived=NEVER_UP)
        failover.established(0, chance=host / 1000)
        dues.append(asked(failover).due)
    assert 30 <= min(dues) < max(dues) <= 90
    assert max(sum(second <= due < second + 1 for due in dues) for second in range(30, 90)) <= 17


@given(st.integers(1, 4), ends)
def test_no_relay_is_dialled_before_its_own_backoff_is_over(count: int, ends: list[tuple[float, float | None]]) -> None:
    """Whatever happens, and in whatever order."""
    failover, now = Failover(count, return_after=60), 0.0
    free = [0.0] * count
    for wait, lived in ends:
        assert now >= free[failover.current] - 1e-6
        now += lived or 0.0
        free[failover.current] = now + wait
        now += failover.ended(now, wait=wait, lived=lived)


@given(st.integers(1, 4), ends)
def test_nobody_waits_while_a_relay_is_free(count: int, ends: list[tuple[float, float | None]]) -> None:
    """But for the one more chance of a relay whose session was lost."""
    failover, now = Failover(count, return_after=60), 0.0
    free = [0.0] * count
    for wait, lived in ends:
        here = failover.current
        free[here] = now + wait
        pause = failover.ended(now, wait=wait, lived=lived)
        stayed = lived is not None and failover.current == here
        assert stayed or now + pause == pytest.approx(max(now, min(free)))
        now += pause


@given(st.integers(1, 4), ends, waits, chances)
def test_questions_go_to_earlier_relays_alone(
    count: int, ends: list[tuple[float, float | None]], wait: float, chance: float
) -> None:
    """And never before what their backoff says."""
    failover = Failover(count, return_after=60)
    for now, (pause, lived) in enumerate(ends):
        failover.ended(float(now), wait=pause, lived=lived)
        failover.established(float(now), chance=chance)
        question = failover.question()
        assert (question is None) == (failover.current == 0)
        if question is not None:
            assert question.relay < failover.current
            failover.unwell(question.relay, question.due, wait=wait, chance=chance)
            assert failover.question() != question
