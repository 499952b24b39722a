"""When unanswered datagrams are sent again, in which order, and how often."""

from __future__ import annotations

from math import inf

import pytest

from tunneld.core.pair.resend import ECHO_RESENDS, MAX_UNANSWERED, RESEND_PAUSE, RESENDS, UnansweredDatagrams
from tunneld.core.stream.queue import MAX_AGE, Waiting

NOW = 1000.0
LATE = NOW + 0.1


def of(*numbers: int, trip: float = 0.08, has_echoes: bool = False) -> UnansweredDatagrams:
    """Unanswered datagrams with these numbers; datagram n left in packet 10 n."""
    unanswered = UnansweredDatagrams(has_echoes=has_echoes)
    for number in numbers:
        unanswered.add(Waiting(0, number, b"key", NOW), [10 * number], LATE + number / 100, trip)
    return unanswered


def numbers(unanswered: UnansweredDatagrams, now: float) -> list[int]:
    """The numbers of the datagrams that are sent again now."""
    return [late.waiting.number for late in unanswered.take_late(now)]


def test_when_one_is_late_all_go_again_the_newest_first() -> None:
    """The newest datagram brings what the others bring."""
    unanswered = of(1, 2, 3)
    assert unanswered.due() == LATE + 0.01
    assert numbers(unanswered, LATE + 0.01) == [3, 2, 1]
    assert unanswered.due() == LATE + 0.01 + RESEND_PAUSE


def test_one_that_went_along_is_not_late_before_its_time() -> None:
    """Otherwise each datagram would make the next one late, for as long as somebody types."""
    unanswered = of(1, 9)
    assert numbers(unanswered, unanswered.due()) == [9, 1]
    unanswered.answered(10)
    assert unanswered.due() == LATE + 0.09


def test_an_answer_to_any_of_its_packets_is_enough() -> None:
    """The first packet or a copy may be answered; an answer to another packet changes nothing."""
    unanswered = of(1, 2, 3)
    unanswered.add_packet(1, 11)
    unanswered.answered(11)
    unanswered.answered(20)
    unanswered.answered(99)
    assert [late.waiting.number for late in unanswered] == [3]
    unanswered.answered(30)
    assert unanswered.due() == inf


def moments(unanswered: UnansweredDatagrams) -> list[float]:
    """When something is sent again, in seconds after the first time."""
    moments = []
    while unanswered.due() < inf:
        moments.append(unanswered.due())
        unanswered.take_late(moments[-1])
    return [moment - moments[0] for moment in moments]


def test_it_ends_when_mosh_itself_sends_again() -> None:
    """After three times the datagram is only remembered."""
    unanswered = of(1)
    assert moments(unanswered) == pytest.approx([RESEND_PAUSE * time for time in range(RESENDS)])
    assert numbers(unanswered, NOW + 1) == []


def test_an_echo_goes_again_for_longer() -> None:
    """mosh-server's newest datagram is what somebody waits for, and it brings what the others bring."""
    quick = [RESEND_PAUSE * time for time in range(RESENDS)]
    slow = [quick[-1] + 2 * RESEND_PAUSE * time for time in range(1, ECHO_RESENDS + 1)]
    assert moments(of(1, has_echoes=True)) == pytest.approx([*quick, *slow])
    several = of(1, 2, has_echoes=True)
    for _ in range(RESENDS + 1):
        going = numbers(several, several.due())
    assert going == [2]


def test_on_a_long_line_they_go_less_often() -> None:
    """With the usual pauses all of them would be on the way at once, and fill a slow line."""
    assert moments(of(1, trip=0.6)) == pytest.approx([0, 0.075, 0.15])
    assert moments(of(1, trip=2.0)) == pytest.approx([0, 0.25, 0.5])


def test_what_mosh_has_sent_anew_by_now_does_not_go_again() -> None:
    """After a laptop's sleep mosh would measure the sleep as a round trip."""
    unanswered = of(1)
    assert numbers(unanswered, NOW + MAX_AGE) == []
    assert unanswered.due() == inf


def test_the_oldest_give_way() -> None:
    unanswered = of(*range(2 * MAX_UNANSWERED))
    assert [late.waiting.number for late in unanswered] == [*reversed(range(MAX_UNANSWERED, 2 * MAX_UNANSWERED))]


def test_eight_datagrams_are_remembered() -> None:
    """Each is sent again three times, and five times more where it is an echo."""
    assert len(list(of(*range(20)))) == 8
    assert len(moments(of(1))) == 3
    assert len(moments(of(1, has_echoes=True))) == 3 + 5


@pytest.mark.parametrize(("age", "going"), [(1.09, [1]), (1.1, [])])
def test_the_age_at_which_mosh_sends_anew(age: float, going: list[int]) -> None:
    """After mosh's longest timeout of a second and its acknowledgement delay of 100 ms."""
    unanswered = UnansweredDatagrams(has_echoes=False)
    unanswered.add(Waiting(0, 1, b"key", 0.0), [1], 0.5, 0.08)
    assert numbers(unanswered, age) == going
