"""What round trips tell of a path: when an answer is late, and whether a queue is on the way."""

from __future__ import annotations

from math import inf

import pytest

from tunneld.core.pair.round_trips import ASSUMED_TRIP, GROUP, GROUPS, LATE_MARGIN, QUEUE, QUEUED, RoundTrips

NOW = 1000.0


def trips(*each: float, every: float = 0.05, since: float = NOW, of: RoundTrips | None = None) -> RoundTrips:
    """Round trips of these lengths, whose questions left `every` seconds apart."""
    made = of or RoundTrips()
    for number, trip in enumerate(each):
        asked = since + number * every
        made.learn(asked, asked + trip)
    return made


def test_nothing_is_known_at_first() -> None:
    """Before the first round trip an answer is late after an assumed one."""
    assert (RoundTrips().usual, RoundTrips().shortest, RoundTrips().late) == (None, inf, ASSUMED_TRIP + LATE_MARGIN)


def test_the_shortest_is_remembered_for_a_while() -> None:
    """The shortest round trip is forgotten after sixteen groups, and at once when the route may have changed."""
    made = trips(0.02, *[0.1] * 8, every=1.1 * GROUP)
    assert made.shortest == pytest.approx(0.02)
    made.forget_shortest()
    assert made.shortest == made.usual
    assert trips(0.02, *[0.1] * GROUPS, every=1.1 * GROUP).shortest == pytest.approx(0.1)


def test_what_waits_on_the_way_makes_each_round_trip_longer() -> None:
    """While each of the last eight is long there is a queue; later, or after a move, it is a longer route."""
    queue = [0.08 + 1.1 * QUEUE] * QUEUED
    assert trips(0.08, *queue).has_queue
    assert not trips(0.08, *queue, 0.09).has_queue
    assert not trips(0.08, *queue, *[0.3] * GROUPS, every=1.1 * GROUP).has_queue
    moved = trips(0.08, *queue)
    moved.forget_shortest()
    trips(*queue, since=NOW + 10, of=moved)
    assert not moved.has_queue


def test_one_short_round_trip_means_that_nothing_waits() -> None:
    """One short round trip among the last eight, only seven long ones, or a route that was always long are no queue."""
    assert not trips(0.08, *[0.2] * (QUEUED - 1), 0.09).has_queue
    assert not trips(0.08, *[0.2] * (QUEUED - 2)).has_queue
    assert not trips(*[0.6] * 2 * QUEUED).has_queue


def test_where_packets_come_as_they_like_late_ones_are_no_queue() -> None:
    """With a jitter of 100 ms eight long round trips in a row may be chance; with 10 ms they are a queue."""
    wild = [0.08, 0.18] * 20
    assert not trips(*wild, *[0.19, 0.15] * (QUEUED // 2)).has_queue
    assert trips(*[0.08, 0.09] * 20, *[0.19, 0.18] * (QUEUED // 2)).has_queue


def arrive(*each: tuple[float, float]) -> RoundTrips:
    """Answers that come so many seconds after NOW, each after a round trip of so many seconds."""
    made = RoundTrips()
    for after, trip in each:
        made.learn(NOW + after - trip, NOW + after)
    return made


@pytest.mark.parametrize(
    ("each", "usual", "late"),
    [
        ((), None, 0.515),
        ((0.1,), 0.1, 0.1 + 4 * 0.05),
        ((0.1, 0.2), 0.1125, 0.1125 + 4 * 0.0625),
        ((0.1, 0.2, 0.1), 0.1109375, 0.1109375 + 4 * 0.05),
        ((0.02,) * 40, 0.02, 0.02 + 0.015),
    ],
)
def test_when_an_answer_is_late(each: tuple[float, ...], usual: float | None, late: float) -> None:
    """The smoothed round trip and its variation are those of RFC 6298, with 15 ms as the least variation."""
    made = trips(*each)
    assert made.usual == (None if usual is None else pytest.approx(usual))
    assert made.late == pytest.approx(late)


def test_the_shortest_of_sixteen_groups() -> None:
    """A group begins 250 ms after the one before, and a short round trip is forgotten with the sixteenth after it."""
    later = [(group / 4 + within, 0.1) for group in range(1, 17) for within in (0, 0.1)]
    assert arrive((0, 0.02), *later[:30]).shortest == pytest.approx(0.02)
    assert arrive((0, 0.02), *later).shortest == pytest.approx(0.1)
    many = [(number / 100, 0.1) for number in range(1, 25)]
    assert arrive((0, 0.02), *many).shortest == pytest.approx(0.02)
    assert arrive((0, 0.1), (0.2, 0.05)).shortest == pytest.approx(0.05)


def test_eight_long_round_trips_make_a_queue() -> None:
    """Each of them exceeds the shortest one by more than 50 ms; seven are too few."""
    assert trips(0.08, *[0.131] * 8).has_queue
    assert not trips(0.08, *[0.129] * 8).has_queue
    assert not trips(0.08, *[0.131] * 7).has_queue


@pytest.mark.parametrize(("long", "is_queue"), [(0.285, False), (0.293, True)])
def test_a_queue_exceeds_three_times_the_jitter(long: float, is_queue: bool) -> None:
    """After round trips of 100 and 200 ms in turn, the jitter of RFC 3550 calls for 190 ms above the shortest one."""
    assert trips(*[0.1, 0.2] * 40, *[long] * 8, every=0.01).has_queue is is_queue
