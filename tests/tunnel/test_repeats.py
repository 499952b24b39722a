"""Which repetitions of an event get a line in the log."""

from __future__ import annotations

from tunneld.tunnel.repeats import MOST_REPEATED, Repeats


def test_repetitions_get_a_line_at_growing_intervals() -> None:
    """A day of the same failure makes a dozen lines, each with its number."""
    repeats = Repeats()
    assert [n for n in (repeats.count("refused") for _ in range(1500)) if n] == [2**k for k in range(11)]
    assert repeats.hidden == 1500 - 11


def test_each_reason_is_counted_for_itself_until_forgotten() -> None:
    """Another failure is news; after a stable session the first is news again."""
    repeats = Repeats()
    assert [repeats.count(key) for key in "aabaa"] == [1, 2, 1, 0, 4]
    assert repeats.forget() == 1
    assert [repeats.count(key) for key in "ab"] == [1, 1]


def test_ever_new_reasons_are_counted_together() -> None:
    """A relay that words each refusal differently fills neither memory nor journal."""
    repeats = Repeats()
    lines = [repeats.count(f"port {n} away") for n in range(10_000)]
    assert sum(bool(line) for line in lines) < MOST_REPEATED + 15
    assert lines[-1] == 0


def test_a_reason_that_is_known_is_counted_for_itself_among_ever_new_ones() -> None:
    """Its own number goes on, however many others have come."""
    repeats = Repeats()
    repeats.count("known")
    for n in range(2 * MOST_REPEATED):
        repeats.count(f"port {n} away")
    assert repeats.count("known") == 2


def test_what_was_not_shown_is_told_once() -> None:
    """The next sum begins at nothing."""
    repeats = Repeats()
    for _ in range(3):
        repeats.count("refused")
    assert [repeats.forget(), repeats.forget()] == [1, 0]
