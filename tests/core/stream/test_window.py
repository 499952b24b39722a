"""The send window: how many datagrams may be unacknowledged, and what makes that more or fewer."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.stream.window import (
    FIRST_WINDOW,
    GOOD_DELAY,
    LATE_INTERVAL,
    MAX_WINDOW,
    MIN_WINDOW,
    SHORTEST_RTT_AGE,
    SendWindow,
)


class Line:
    """A window and a clock: datagrams go out as far as they may, and are acknowledged when a test says so."""

    def __init__(self, now: float = 5000.0) -> None:
        self.window = SendWindow()
        self.now = now
        self.total = 0
        self.under_way = 0

    def send(self, count: int | None = None) -> None:
        for _ in range(self.window.room if count is None else count):
            self.window.sent(self.now)
            self.under_way += 1

    def answer(self, count: int = 1) -> None:
        self.total = (self.total + count) & 0xFFFFFFFF
        assert self.window.acknowledge(self.total, self.now)
        self.under_way -= count

    def round_trips(self, count: int, rtt: float) -> None:
        """Keep the window full; each window is acknowledged as a whole after `rtt` seconds."""
        for _ in range(count):
            self.send()
            self.now += rtt
            self.answer(self.under_way)

    def queue_behind(self, seconds: float, *, rate: float, rtt: float) -> None:
        """Keep the window full over a link that passes `rate` datagrams a second and adds `rtt` seconds."""
        until, free = self.now + seconds, self.now
        arrivals: deque[float] = deque()
        while self.now < until:
            for _ in range(self.window.room):
                self.send(1)
                free = max(free, self.now) + 1 / rate
                arrivals.append(free + rtt)
            self.now = arrivals.popleft()
            self.answer()


def test_it_starts_with_enough_for_fast_retransmit() -> None:
    """Eight datagrams may go before anything was heard."""
    line = Line()
    line.send()
    assert line.under_way == FIRST_WINDOW == 8
    assert line.window.room == 0


def test_it_grows_while_acknowledgements_are_good() -> None:
    """The window grows by about one datagram a round trip, up to its maximum."""
    line = Line()
    line.round_trips(2, 0.1)
    assert FIRST_WINDOW + 1 < line.window.size <= FIRST_WINDOW + 2
    line.round_trips(20, 0.1)
    assert line.window.size == MAX_WINDOW


def test_it_does_not_grow_while_it_is_not_the_limit() -> None:
    """A sender who never fills the window shows nothing about a larger one."""
    line = Line()
    for count in [1, FIRST_WINDOW - 1] * 50:
        line.send(count)
        line.now += 0.1
        line.answer(count)
    assert line.window.size == FIRST_WINDOW


def test_it_grows_by_what_was_acknowledged_while_it_was_full() -> None:
    """After one acknowledgement of a full window the next one finds room, and adds nothing."""
    line = Line()
    line.send()
    line.now += 0.1
    line.answer(4)
    assert line.window.size == FIRST_WINDOW + 4 / FIRST_WINDOW
    line.answer(4)
    assert line.window.size == FIRST_WINDOW + 4 / FIRST_WINDOW


def test_a_standing_queue_shrinks_it_to_its_minimum() -> None:
    """A link of 64 kbit/s under full-size datagrams is left with two of them."""
    line = Line()
    line.round_trips(1, 0.06)
    line.queue_behind(10, rate=6.4, rtt=0.06)
    assert line.window.size < MIN_WINDOW + 1


def test_it_grows_again_when_the_queue_is_gone() -> None:
    """A link that has become fast is used as such."""
    line = Line()
    line.round_trips(1, 0.06)
    line.queue_behind(10, rate=6.4, rtt=0.06)
    line.queue_behind(5, rate=1000, rtt=0.06)
    assert line.window.size > FIRST_WINDOW


def test_a_queue_of_minutes_is_not_taken_for_a_longer_route() -> None:
    """While the shortest round trip ages, the standing queue of a slow link stays in bounds."""
    line = Line()
    line.round_trips(1, 0.06)
    line.queue_behind(600, rate=6.4, rtt=0.06)
    assert line.window.size < 5


def test_one_late_acknowledgement_does_not_shrink_it() -> None:
    """A lost segment delays a window once, by a retransmission."""
    line = Line()
    line.round_trips(10, 0.1)
    line.round_trips(1, 3.0)
    assert line.window.size == MAX_WINDOW
    line.round_trips(1, 0.1)
    line.round_trips(1, 3.0)
    assert line.window.size == MAX_WINDOW


def test_late_acknowledgements_far_apart_do_not_shrink_it() -> None:
    """Two retransmissions with silence between them are no standing queue."""
    line = Line()
    line.round_trips(10, 0.1)
    for _ in range(5):
        line.send(1)
        line.now += 1.0
        line.answer()
        line.now += 60.0
    assert line.window.size == MAX_WINDOW


@pytest.mark.parametrize(("rtt", "interval"), [(0.1, LATE_INTERVAL), (0.25, LATE_INTERVAL), (0.4, 0.8), (1.0, 2.0)])
def test_late_acknowledgements_halve_it_after_an_interval(rtt: float, interval: float) -> None:
    """Every acknowledgement of half a second, or of two long round trips, must have been late."""
    line = Line()
    line.round_trips(20, rtt)
    line.send()
    line.now += rtt + GOOD_DELAY + 0.01
    line.answer()
    line.now += interval - 0.01
    line.answer()
    assert line.window.size == MAX_WINDOW
    line.now += 0.02
    line.answer()
    assert line.window.size == MAX_WINDOW / 2
    line.now += interval - 0.01
    line.answer()
    assert line.window.size == MAX_WINDOW / 2
    line.now += 0.02
    line.answer()
    assert line.window.size == MAX_WINDOW / 4


def test_one_good_acknowledgement_begins_the_interval_anew() -> None:
    """An acknowledgement within the good delay shows that no queue stands."""
    line = Line()
    line.round_trips(20, 0.1)
    line.send(1)
    line.now += 0.3
    line.answer()
    line.send(1)
    line.now += 0.1 + GOOD_DELAY - 0.01
    line.send(2)
    line.answer()
    line.now += 0.3
    line.answer()
    assert line.window.size == MAX_WINDOW


def test_a_longer_route_is_learnt() -> None:
    """When the shortest round trip has aged, a route that is longer for good counts as good."""
    line = Line()
    line.round_trips(10, 0.02)
    line.queue_behind(3 * SHORTEST_RTT_AGE + 20, rate=1000, rtt=0.5)
    assert line.window.size == MAX_WINDOW


def test_the_shortest_round_trip_of_the_last_half_minute_counts() -> None:
    """When the older one has aged, a queue that stands at that moment is not taken for a longer route."""
    line = Line()
    line.round_trips(1, 0.1)
    line.round_trips(int(SHORTEST_RTT_AGE / 0.1) - 1, 0.1)
    line.send()
    for _ in range(2):
        line.now += 0.6
        line.answer()
    assert line.window.size == MAX_WINDOW / 2


def test_the_round_trip_is_smoothed() -> None:
    """The first round trip counts as it is, each later one for an eighth."""
    line = Line()
    assert line.window.smoothed_rtt is None
    line.round_trips(1, 0.5)
    assert line.window.smoothed_rtt == pytest.approx(0.5)
    line.round_trips(1, 0.1)
    assert line.window.smoothed_rtt == pytest.approx(0.45)


def test_acknowledgements_wrap() -> None:
    """Totals are modulo 2^32."""
    line = Line()
    line.window._acknowledged = line.total = 0xFFFFFFFE
    for _ in range(3):
        line.send(3)
        line.answer(3)
    assert line.total == 7
    assert line.window.oldest is None


@pytest.mark.parametrize("total", [4, 5, 0xFFFFFFFF, 1 << 31])
def test_acknowledging_more_than_was_sent_is_refused(total: int) -> None:
    """Going back is refused as well; what was acknowledged before still holds."""
    line = Line()
    line.send(3)
    line.answer(1)
    assert not line.window.acknowledge(total, line.now)
    assert line.window.room == FIRST_WINDOW - 2
    assert line.window.acknowledge(3, line.now)


def test_the_oldest_unacknowledged_is_known() -> None:
    """The carrier looks at it to see a stall."""
    line = Line(now=10.0)
    assert line.window.oldest is None
    line.send(1)
    line.now = 11.0
    line.send(1)
    assert line.window.oldest == 10.0
    line.answer()
    assert line.window.oldest == 11.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 12), st.integers(0, 0xFFFFFFFF)), max_size=60))
def test_whatever_the_peer_says_the_bounds_hold(steps: list[tuple[float, int, int]]) -> None:
    """A peer that acknowledges at will moves the window between its bounds and nothing else."""
    window, now, total, sent = SendWindow(), 1000.0, 0, 0
    for passed, fresh, lie in steps:
        now += passed
        while window.room:
            window.sent(now)
            sent += 1
        for claim in (total + fresh, lie):
            room = window.room
            if window.acknowledge(claim, now):
                total = claim
            else:
                assert window.room == room
        assert MIN_WINDOW <= window.size <= MAX_WINDOW
        assert 0 <= sent - total <= MAX_WINDOW


def test_the_datagrams_and_seconds_of_a_window() -> None:
    """8 datagrams at first, from 2 to 12 later; the route's shortest round trip counts for half a minute or more."""
    assert (FIRST_WINDOW, MIN_WINDOW, MAX_WINDOW) == (8, 2, 12)
    assert (GOOD_DELAY, LATE_INTERVAL, SHORTEST_RTT_AGE) == (0.15, 0.5, 30)


@pytest.mark.parametrize(("answered", "size"), [(0.65, 10), (0.66, 9)])
def test_how_late_an_acknowledgement_may_be(answered: float, size: int) -> None:
    """A round trip that is 0.15 s above the shortest one is still good."""
    line = Line(now=0.0)
    line.round_trips(1, 0.25)
    assert line.window.size == 9
    line.send()
    line.now = answered
    line.answer(9)
    assert line.window.size == size


@pytest.mark.parametrize(("after", "size"), [(0.49, 9), (0.5, 4.5)])
def test_how_long_everything_may_be_late(after: float, size: float) -> None:
    """Half a second after the first late acknowledgement the next one halves the window."""
    line = Line(now=0.0)
    line.round_trips(1, 0.25)
    line.send(2)
    line.now = 2.0
    line.answer()
    line.now += after
    line.answer()
    assert line.window.size == size
