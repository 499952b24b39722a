"""Time that passed unseen, told from two clocks."""

from __future__ import annotations

import pytest

from tunneld.core.sleep_watch import SleepWatch


@pytest.mark.parametrize(
    ("now", "asleep", "missed"),
    [
        pytest.param(101.0, 50.0, False, id="an ordinary look"),
        pytest.param(101.0, 52.0, False, id="a nap that nobody noticed"),
        pytest.param(101.0, 52.1, True, id="a short sleep"),
        pytest.param(101.0, 3650.0, True, id="a long sleep"),
        pytest.param(104.0, 50.0, False, id="a busy machine"),
        pytest.param(104.1, 50.0, True, id="a process that was stopped"),
        pytest.param(100.5, 50.0, False, id="a look before its time"),
    ],
)
def test_time_that_was_missed_is_told_once(now: float, asleep: float, missed: bool) -> None:
    """The look after it is an ordinary one again."""
    watch = SleepWatch(1.0, 100.0, 50.0)
    assert watch.missed_time(now, asleep) is missed
    assert not watch.missed_time(now + 1, asleep)


def test_a_look_is_late_by_what_exceeds_the_pause() -> None:
    """A program that looks each minute is not late after a minute."""
    watch = SleepWatch(60.0, 0.0, 0.0)
    assert not watch.missed_time(63.0, 0.0)
    assert watch.missed_time(126.1, 0.0)
