"""Other people's words, made fit for a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunneld.core.printable import escaped, one_line


def test_control_characters_become_single_spaces() -> None:
    """Nothing of an escape sequence is left but its printable rest."""
    assert one_line("\x1b[2Jgone\r\n\tand  back\u202e\x9b ") == "[2Jgone and back"


def test_a_long_text_ends_with_an_ellipsis() -> None:
    """The bound counts the ellipsis; a text of just that length stays whole."""
    assert one_line("abcdef", 5) == "abcd…"
    assert one_line("abcde", 5) == "abcde"


def test_escapes_lose_nothing() -> None:
    """Each unprintable character is written as Python writes it."""
    assert escaped("a\x1b[0m\nb\u202e") == "a\\x1b[0m\\nb\\u202e"
    assert escaped("plain ü") == "plain ü"


@given(st.text(), st.integers(1, 20))
def test_whatever_comes_in_can_be_printed(text: str, longest: int) -> None:
    """On one line, and not longer than asked for."""
    assert one_line(text, longest).isprintable()
    assert len(one_line(text, longest)) <= longest
    assert escaped(text).isprintable()
