"""When datagrams without an answer go again, in which order, and how often."""

from __future__ import annotations

from math import inf

from tunneld.core.queue import Waiting
from tunneld.core.unanswered import AGAIN, MOST, TIMES, Unanswered

NOW = 1000.0
LATE = NOW + 0.1


def of(*numbers: int) -> Unanswered:
    """Datagrams with these numbers, each sent in the packet of ten times its number."""
    unanswered = Unanswered()
    for number in numbers:
        unanswered.add(Waiting(0, number, b"key", NOW), [10 * number], LATE + number / 100)
    return unanswered


def numbers(unanswered: Unanswered, now: float) -> list[int]:
    """Those that go again now."""
    return [late.waiting.number for late in unanswered.again(now)]


def test_when_one_is_late_all_go_again_the_newest_first() -> None:
    """It says what the others say."""
    unanswered = of(1, 2, 3)
    assert unanswered.due() == LATE + 0.01
    assert numbers(unanswered, LATE + 0.01) == [3, 2, 1]
    assert unanswered.due() == LATE + 0.01 + AGAIN


def test_an_answer_to_any_of_its_packets_is_enough() -> None:
    """The first, a copy, or a later one; an answer to something else changes nothing."""
    unanswered = of(1, 2, 3)
    unanswered.went(1, 11)
    unanswered.answered(11)
    unanswered.answered(20)
    unanswered.answered(99)
    assert [late.waiting.number for late in unanswered] == [3]
    unanswered.answered(30)
    assert unanswered.due() == inf


def test_it_ends_when_mosh_itself_sends_again() -> None:
    """So many times, and then it is only remembered."""
    unanswered = of(1)
    now = LATE
    for _ in range(TIMES):
        assert numbers(unanswered, now) == [1]
        now += AGAIN
    assert unanswered.due() == inf
    assert numbers(unanswered, now) == []


def test_the_oldest_give_way() -> None:
    unanswered = of(*range(2 * MOST))
    assert [late.waiting.number for late in unanswered] == [*reversed(range(MOST, 2 * MOST))]
