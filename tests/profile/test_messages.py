"""Pieces of the messages; what is said about which fault is in test_problems.py."""

from __future__ import annotations

import pytest

from tunneld.profile.messages import dotted_key, quoted
from tunneld.profile.toml_lines import Location


@pytest.mark.parametrize(
    ("location", "key"),
    [
        ((), ""),
        (("mode",), "mode"),
        (("forward", 0, "listen"), "forward[1].listen"),
        (("relay", 1), "relay[2]"),
        (("a b", "é"), '"a b"."é"'),
        (("line\nend",), '"line\\nend"'),
    ],
)
def test_a_location_as_people_read_it(location: Location, key: str) -> None:
    """People count from 1; a key that is not bare stands in quotes, on one line."""
    assert dotted_key(location) == key


def test_a_long_value_is_cut() -> None:
    """A quote has at most 60 characters of the value, its own quotation marks included."""
    whole = "x" * 58
    assert quoted(whole) == f'"{whole}"'
    assert quoted(f"{whole}x") == f'"{whole}x...'
