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
