"""Why no session came to be, in words."""

from __future__ import annotations

import pytest

from tunneld.mosh.failed_start import unexpected, unserved


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"error": "that machine is full"}, "home: that machine is full"),
        ({"error": "evil \033]0;owned\007\n words"}, "home: evil ]0;owned words"),
        ({"code": "no-mosh-server", "error": "-"}, "home has no mosh-server"),
        ({"door": "/tmp/x"}, "home: its agent's answer makes no sense"),
    ],
)
def test_an_answer_is_a_sentence_that_no_terminal_obeys(answer: dict[str, str], sentence: str) -> None:
    """Whatever the far side put into it."""
    assert str(unserved("home", answer)).startswith(sentence)


def test_what_a_login_says_is_no_order_to_the_terminal_either() -> None:
    """The last line of it is told."""
    assert str(unexpected("home", 1, "", "hello\n\033[31mno  way\n")).endswith("it says: [31mno way")
