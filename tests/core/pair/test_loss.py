"""How much gets lost, as the peer's answers tell it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.pair.loss import REMEMBERED, Loss
from tunneld.core.pair.redundancy import estimate

NOW = 1000.0


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15, 0.3])
def test_loss_is_what_did_not_come(share: float) -> None:
    """The estimate is near the true share, though answers get lost as well; without losses it is exactly 0."""
    chance = random.Random(1)
    loss, came = Loss(), 0
    for sent in range(1, 2000):
        came += chance.random() >= share
        if chance.random() < 0.2:
            loss.learn(sent, came, NOW + sent / 20)
    seen = estimate(loss, NOW + 100)
    assert seen is not None
    assert seen == 0 if share == 0 else share * 0.7 < seen < share * 1.8


def test_few_packets_say_nothing() -> None:
    """Neither fewer than twenty packets nor a single answer give an estimate."""
    loss = Loss()
    assert estimate(loss, NOW) is None
    loss.learn(10, 10, NOW)
    loss.learn(29, 20, NOW + 1)
    assert estimate(loss, NOW + 1) is None
    loss.learn(30, 20, NOW + 2)
    assert estimate(loss, NOW + 2) == 10 / 22


def test_a_packet_that_was_overtaken_is_not_lost() -> None:
    """A packet that is missing from one answer and counted in a later one was only late."""
    loss = Loss()
    for number in range(80):
        loss.learn(5 * number, 5 * number - (number % 3), NOW + number / 4)
    assert estimate(loss, NOW + 20) == 0


def test_an_overtaken_probe_is_no_loss_afterwards() -> None:
    """An answer that counts more packets than left before its probe does not make later answers look lossy."""
    loss = Loss()
    for number in range(80):
        loss.learn(5 * number, 5 * number + (number % 2 if number < 40 else 0), NOW + number / 4)
    assert estimate(loss, NOW + 20) == 0


def test_loss_that_begins_is_seen_at_once_and_loss_that_ends_is_remembered() -> None:
    """The estimate is the worse of the last five seconds and the last thirty."""
    loss = Loss()
    for second in range(20):
        loss.learn(20 * second, 20 * second, NOW + second)
    for second in range(20, 24):
        loss.learn(20 * second, 380 + 10 * (second - 19), NOW + second)
    assert (estimate(loss, NOW + 23) or 0) > 0.3
    for second in range(24, 45):
        loss.learn(20 * second, 20 * second - 60, NOW + second)
    assert 0 < (estimate(loss, NOW + 44) or 0) < 0.15


def test_a_peer_that_counts_anew_is_no_loss() -> None:
    """A count that drops means that the peer forgot the path, or that the NAT gave us another port."""
    loss = Loss()
    loss.learn(1000, 1000, NOW)
    loss.learn(1050, 20, NOW + 1)
    loss.learn(1100, 70, NOW + 2)
    assert loss.lately(REMEMBERED, NOW + 2) == (50, 0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 1 << 33), st.integers(0, 1 << 33)), max_size=300))
def test_any_answers_leave_it_small_and_sane(answers: list[tuple[float, int, int]]) -> None:
    """Whatever a peer claims to have received, the estimate is a share, and the list stays short."""
    loss, now = Loss(), NOW
    for after, sent, came in answers:
        now += after
        loss.learn(sent, came, now)
        share = estimate(loss, now)
        assert share is None or 0 <= share <= 1
    assert len(loss._entries) <= REMEMBERED / 0.2 + 2


def told(*answers: tuple[float, int, int], of: float = 60) -> tuple[int, int]:
    """How many packets the answers are about, and how many were lost; an answer is its second, sent and came."""
    loss = Loss()
    for after, sent, came in answers:
        loss.learn(sent, came, NOW + after)
    return loss.lately(of, NOW + max((after for after, _, _ in answers), default=0))


def test_a_loss_shows_in_two_answers() -> None:
    """No answer, or one, says nothing; the last answer alone may have overtaken what it misses."""
    assert told() == (0, 0)
    assert told((0, 50, 40)) == (0, 0)
    assert told((0, 0, 0), (1, 20, 10)) == (20, 0)
    assert told((0, 0, 0), (1, 50, 50), (2, 100, 90)) == (100, 0)
    assert told((0, 0, 0), (1, 50, 40), (2, 100, 90)) == (100, 10)


def test_an_answer_that_was_overtaken_says_nothing() -> None:
    """It is about fewer packets than the answer before; one about as many is news."""
    assert told((0, 10, 10), (1, 30, 30), (2, 20, 20)) == (20, 0)
    assert told((0, 0, 0), (1, 10, 0), (2, 20, 10), (3, 20, 20)) == (20, 0)


@pytest.mark.parametrize(("came", "expected"), [(50, (200, 50)), (49, (50, 0))])
def test_a_peer_counts_anew_when_its_count_falls_below_half(came: int, expected: tuple[int, int]) -> None:
    """Half of the last count may still be the old count."""
    assert told((0, 0, 0), (1, 100, 100), (2, 150, came), (3, 200, 150 if came == 50 else 99)) == expected


@pytest.mark.parametrize(("after", "expected"), [(30, 20), (30.1, 10)])
def test_answers_are_remembered_for_half_a_minute(after: float, expected: int) -> None:
    """However long a period is asked about."""
    assert told((0, 0, 0), (15, 10, 10), (after, 20, 20)) == (expected, 0)


@pytest.mark.parametrize(("of", "expected"), [(10, 20), (9.9, 10)])
def test_the_answers_of_a_period_count(of: float, expected: int) -> None:
    """An answer as old as the period is its first."""
    assert told((0, 0, 0), (5, 10, 10), (10, 20, 20), of=of) == (expected, 0)


@pytest.mark.parametrize(("after", "expected"), [(0.75, (100, 0)), (0.85, (200, 10))])
def test_a_period_begins_with_its_worst_answer(after: float, expected: tuple[int, int]) -> None:
    """The worst of its first 0.8 seconds."""
    assert told((0, 0, 0), (after, 100, 90), (2, 150, 140), (3, 200, 190)) == expected


@pytest.mark.parametrize(("before", "lost"), [(0.75, 0), (0.85, 10)])
def test_a_period_ends_with_its_best_answer(before: float, lost: int) -> None:
    """The best of its last 0.8 seconds."""
    assert told((0, 0, 0), (5 - before, 100, 100), (4.5, 150, 140), (5, 200, 190)) == (200, lost)


def test_a_loss_is_at_most_what_was_sent_and_at_least_nothing() -> None:
    """Whatever the peer's counts say."""
    assert told((0, 10, 20), (1, 20, 15), (2, 20, 15)) == (10, 10)
    assert told((0, 10, 0), (1, 20, 20), (2, 30, 30)) == (20, 0)


def test_answers_in_quick_succession_take_one_entry() -> None:
    """A hundred answers within a second leave about five entries."""
    loss = Loss()
    for number in range(101):
        loss.learn(number, number, NOW + number / 100)
    assert 5 <= len(loss._entries) <= 7
    loss.forget()
    assert loss.lately(REMEMBERED, NOW + 1) == (0, 0)
