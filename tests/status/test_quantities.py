"""Numbers in words."""

from __future__ import annotations

import pytest

from tunneld.status.quantities import counted, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (172800, "2 d"),
        (86400 * 400 + 3600 * 5, "400 d 5 h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    """Nobody reads the seconds of three days."""
    assert duration(seconds) == words


def test_a_duration_of_one_unit() -> None:
    """In a line that is seen at a glance, hours are enough."""
    assert duration(11_100, units=1) == "3 h"
    assert duration(11_100) == "3 h 5 min"


@pytest.mark.parametrize(("number", "words"), [(0, "0 relays"), (1, "1 relay"), (2, "2 relays")])
def test_one_thing_is_told_in_the_singular(number: int, words: str) -> None:
    """Every other number takes the plural."""
    assert counted(number, "relay") == words
