"""Why no session could start, in words."""

from __future__ import annotations

import pytest

from tunneld.core.printable import LONGEST_QUOTE
from tunneld.mosh.failed_start import LONGEST_ERROR, SilentExit, last_line, unexpected, unserved


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
    """Whatever the machine at the other end put into the answer."""
    assert str(unserved("home", answer)).startswith(sentence)


def test_what_a_login_says_is_no_order_to_the_terminal_either() -> None:
    """Its last line that is not blank is told."""
    assert str(unexpected("home", 1, "", "hello\n\033[31mno  way\n \n")).endswith("it says: [31mno way")


def test_foreign_words_are_shortened() -> None:
    """A message stays readable, however much the other machine says."""
    assert last_line("x" * (LONGEST_QUOTE + 1)) == "x" * (LONGEST_QUOTE - 1) + "…"
    assert last_line("x" * LONGEST_QUOTE) == "x" * LONGEST_QUOTE
    assert str(unserved("home", {"error": "x" * 1000})) == f"home: {'x' * (LONGEST_ERROR - 1)}…"


@pytest.mark.parametrize(
    ("status", "said", "noise", "sentence"),
    [
        (127, "sh: python3: not found", "", "home has no python3: install it there, 3.9 or newer"),
        (1, "tunneld needs Python 3.9 or newer here, and found 3.6.8", "", "home has Python 3.6.8 as python3: install"),
        (-15, "", "", "ssh to home was ended by signal 15"),
        (1, "said", "noise", "home does not let our agent run (exit status 1); it says: noise"),
        (1, "said", "", "home does not let our agent run (exit status 1); it says: said"),
        (
            0,
            "",
            "",
            "home does not let our agent run: its session ended with status 0. Is there a forced command "
            "(command= before the key, ForceCommand), or no shell? Use an account that may run commands",
        ),
    ],
)
def test_each_way_to_fail_has_its_sentence(status: int, said: str, noise: str, sentence: str) -> None:
    """What the login printed tells more than what ssh said."""
    assert str(unexpected("home", status, said, noise)).startswith(sentence)


def test_where_ssh_itself_failed_nothing_is_added() -> None:
    """ssh has said why, on the terminal, and its exit status is passed on."""
    ended = unexpected("home", 255, "Permission denied", "")
    assert isinstance(ended, SilentExit)
    assert ended.status == 255
