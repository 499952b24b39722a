"""Credit: how many datagrams may be under way, and what makes that more or fewer."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.stream.window import BASE_AGE, GOOD_DELAY, INITIAL, INTERVAL, LARGEST, SMALLEST, SendWindow


class Path:
    """A credit and a clock: datagrams go out as far as they may and are acknowledged when a test says so."""

    def __init__(self, now: float = 5000.0) -> None:
        self.credit = SendWindow()
        self.now = now
        self.total = 0

    def send(self, count: int | None = None) -> None:
        for _ in range(self.credit.room if count is None else count):
            self.credit.sent(self.now)

    def answer(self, count: int = 1) -> None:
        self.total = (self.total + count) & 0xFFFFFFFF
        assert self.credit.acknowledge(self.total, self.now)

    def round_trips(self, count: int, delay: float) -> None:
        """Keep the window full, each window acknowledged as a whole after `delay` seconds."""
        for _ in range(count):
            self.send()
            self.now += delay
            self.answer(self.credit.under_way)

    def queue_behind(self, seconds: float, *, rate: float, base: float) -> None:
        """Keep the window full over a link that passes `rate` datagrams a second and adds `base` seconds."""
        until, free = self.now + seconds, self.now
        arrivals: deque[float] = deque()
        while self.now < until:
            for _ in range(self.credit.room):
                self.credit.sent(self.now)
                free = max(free, self.now) + 1 / rate
                arrivals.append(free + base)
            self.now = arrivals.popleft()
            self.answer()


def test_it_starts_with_enough_for_fast_retransmit() -> None:
    """Eight datagrams may go before anything was heard."""
    path = Path()
    path.send()
    assert path.credit.under_way == INITIAL
    assert path.credit.room == 0


def test_it_grows_while_answers_are_good() -> None:
    """By about one a round trip, up to the most."""
    path = Path()
    path.round_trips(2, 0.1)
    assert INITIAL + 1 < path.credit.window <= INITIAL + 2
    path.round_trips(20, 0.1)
    assert path.credit.window == LARGEST


def test_it_does_not_grow_while_it_is_not_the_limit() -> None:
    """A typist who never fills the window says nothing about a larger one."""
    path = Path()
    for _ in range(100):
        path.send(1)
        path.now += 0.1
        path.answer()
    assert path.credit.window == INITIAL


def test_a_standing_queue_shrinks_it_to_the_least() -> None:
    """A link of 64 kbit/s under full-size datagrams is left with two of them."""
    path = Path()
    path.round_trips(1, 0.06)
    path.queue_behind(10, rate=6.4, base=0.06)
    assert path.credit.window < SMALLEST + 1


def test_it_grows_again_when_the_queue_is_gone() -> None:
    """A link that became fast is used as such."""
    path = Path()
    path.round_trips(1, 0.06)
    path.queue_behind(10, rate=6.4, base=0.06)
    path.queue_behind(5, rate=1000, base=0.06)
    assert path.credit.window > INITIAL


def test_a_queue_of_minutes_is_not_taken_for_a_longer_route() -> None:
    """While the best round trip ages, the standing queue of a slow link stays in bounds."""
    path = Path()
    path.round_trips(1, 0.06)
    path.queue_behind(600, rate=6.4, base=0.06)
    assert path.credit.window < 5


def test_one_late_answer_does_not_shrink_it() -> None:
    """A lost segment delays a window once, by a retransmission."""
    path = Path()
    path.round_trips(10, 0.1)
    path.round_trips(1, 3.0)
    assert path.credit.window == LARGEST
    path.round_trips(1, 0.1)
    path.round_trips(1, 3.0)
    assert path.credit.window == LARGEST


def test_late_answers_far_apart_do_not_shrink_it() -> None:
    """Two retransmissions with silence between them are no standing queue."""
    path = Path()
    path.round_trips(10, 0.1)
    for _ in range(5):
        path.send(1)
        path.now += 1.0
        path.answer()
        path.now += 60.0
    assert path.credit.window == LARGEST


def test_late_answers_shrink_it_after_an_interval_and_by_half() -> None:
    """Not before every answer of half a second was late."""
    path = Path()
    path.round_trips(10, 0.1)
    path.send()
    path.now += 0.1 + GOOD_DELAY + 0.01
    path.answer()
    path.now += INTERVAL - 0.01
    path.answer()
    assert path.credit.window == LARGEST
    path.now += 0.02
    path.answer()
    assert path.credit.window == LARGEST / 2


def test_a_longer_route_is_learnt() -> None:
    """When the best round trip has aged, a route that is longer for good counts as good."""
    path = Path()
    path.round_trips(10, 0.02)
    path.queue_behind(3 * BASE_AGE + 20, rate=1000, base=0.5)
    assert path.credit.window == LARGEST


def test_acknowledgements_wrap() -> None:
    """Totals are modulo 2^32."""
    path = Path()
    path.credit._acknowledged = path.total = 0xFFFFFFFE
    for _ in range(3):
        path.send(3)
        path.answer(3)
    assert path.total == 7
    assert path.credit.under_way == 0


@pytest.mark.parametrize("total", [4, 5, 0xFFFFFFFF, 1 << 31])
def test_acknowledging_more_than_was_sent_is_refused(total: int) -> None:
    """So is going back; what was said before still holds."""
    path = Path()
    path.send(3)
    path.answer(1)
    assert not path.credit.acknowledge(total, path.now)
    assert path.credit.under_way == 2
    assert path.credit.acknowledge(3, path.now)


def test_the_oldest_unacknowledged_is_known() -> None:
    """Others look at it to see a stall."""
    path = Path(now=10.0)
    assert path.credit.oldest is None
    path.send(1)
    path.now = 11.0
    path.send(1)
    assert path.credit.oldest == 10.0
    path.answer()
    assert path.credit.oldest == 11.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 12), st.integers(0, 0xFFFFFFFF)), max_size=60))
def test_whatever_the_peer_says_the_bounds_hold(steps: list[tuple[float, int, int]]) -> None:
    """A peer that acknowledges at will moves the window between its bounds and nothing else."""
    credit, now, total = SendWindow(), 1000.0, 0
    for passed, fresh, lie in steps:
        now += passed
        while credit.room:
            credit.sent(now)
        if credit.acknowledge(total + fresh, now):
            total += fresh
        before = credit.under_way
        if not credit.acknowledge(lie, now):
            assert credit.under_way == before
        else:
            total = lie
        assert SMALLEST <= credit.window <= LARGEST
        assert credit.under_way <= LARGEST
