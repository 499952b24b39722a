"""What a line can take besides mosh's datagrams, and how a queue changes that."""

from __future__ import annotations

import pytest

from tunneld.core.pair.headroom import BURST, LEAST_SHARE, REGAINED_IN, Headroom

NOW = 1000.0


def test_a_queue_halves_the_room_which_grows_back() -> None:
    """A queue empties the bucket and halves the rate, once in half a second; a minute brings the rate back."""
    room = Headroom(8.0, NOW)  # 1000 bytes a second
    assert [room.take(1000 * int(BURST), NOW), room.take(1, NOW)] == [True, False]
    room.halve(NOW + 10)
    room.halve(NOW + 10)
    assert not room.take(100, NOW + 10)
    assert room.size(NOW + 10) == pytest.approx(4.0)
    assert room.take(45, NOW + 10.1)
    assert room.size(NOW + 10 + REGAINED_IN / 4) == pytest.approx(6.0)
    assert room.size(NOW + 10 + REGAINED_IN) == 8.0
    for second in range(100, 110):
        room.halve(NOW + second)
    assert 8.0 * LEAST_SHARE <= room.size(NOW + 110) < 2 * 8.0 * LEAST_SHARE


def test_no_room_stays_none() -> None:
    """A headroom of zero stays zero, however long one waits."""
    room = Headroom(0.0, NOW)
    room.halve(NOW)
    assert not room.take(1, NOW + 1000)
    assert room.size(NOW + 1000) == 0


def test_two_seconds_worth_may_be_taken_at_once() -> None:
    """The bucket begins full, and is no fuller after an hour."""
    assert [Headroom(8.0, NOW).take(cost, NOW + 3600) for cost in (2000, 2001)] == [True, False]
    assert Headroom(8.0, NOW).take(2000, NOW)


def test_a_refused_cost_takes_nothing() -> None:
    """What is there stays for a smaller one."""
    room = Headroom(8.0, NOW)
    assert [room.take(cost, NOW) for cost in (2001, 1999, 1)] == [False, True, True]


@pytest.mark.parametrize(("after", "rate"), [(0.25, 8.0), (0.5, 4.0)])
def test_a_cut_comes_half_a_second_after_the_last_at_the_earliest(after: float, rate: float) -> None:
    """The bucket is emptied in any case."""
    room = Headroom(8.0, NOW)
    room.halve(NOW + after)
    assert room.size(NOW + after) == rate
    assert not room.take(1, NOW + after)


def test_the_bucket_fills_again_from_nothing() -> None:
    """At the halved rate of 500 bytes a second, with one byte after 2 ms, and so does the rate within a minute."""
    room = Headroom(8.0, NOW)
    room.halve(NOW + 1)
    assert [room.take(1, NOW + 1 + 1 / 1024), room.take(1, NOW + 1 + 3 / 1024)] == [False, True]
    assert room.size(NOW + 16) == pytest.approx(6.0)


def test_a_sixteenth_of_the_rate_remains() -> None:
    """However often a queue is seen."""
    room = Headroom(8.0, NOW)
    for cut in range(1, 20):
        room.halve(NOW + cut / 2)
    assert room.size(NOW + 19 / 2) == 0.5
