"""What mosh-client needs here, and what is said where it is missing."""

from __future__ import annotations

import locale
import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunneld.errors import UnavailableError
from tunneld.mosh import terminal
from tunneld.mosh.terminal import ColorCount, charset
from tunneld.shipped.start_mosh_server import COMMON_LOCALES


@pytest.fixture(autouse=True)
def former_locale() -> Iterator[None]:
    """Other tests have the locale that they had."""
    setlocale = locale.setlocale  # a test's patch may still be in force at the end
    former = setlocale(locale.LC_ALL)
    yield
    setlocale(locale.LC_ALL, former)


def only(*installed: str, monkeypatch: pytest.MonkeyPatch, codeset: str = "UTF-8") -> None:
    """A machine with these locales; "" stands for what the environment names."""

    def setlocale(category: int, name: str | None = None) -> str:
        if name is not None and name not in installed:
            raise locale.Error
        return name or "C"

    monkeypatch.setattr(locale, "setlocale", setlocale)
    monkeypatch.setattr(locale, "nl_langinfo", lambda what: codeset)


@pytest.mark.parametrize("codeset", ["UTF-8", "utf8"])
def test_a_locale_of_utf8_needs_nothing_more(monkeypatch: pytest.MonkeyPatch, codeset: str) -> None:
    """Systems write the name of the character set in several ways."""
    only("", monkeypatch=monkeypatch, codeset=codeset)
    assert charset({"LANG": "de_DE.UTF-8"}) == {}


@pytest.mark.parametrize("other", COMMON_LOCALES)
def test_a_locale_that_is_not_installed_here_has_a_stand_in(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """The first one that is installed here is taken, and stands above all other variables."""
    only(other, monkeypatch=monkeypatch)
    assert charset({"LANG": "xx_XX.utf8"}) == {"LC_ALL": other}


def test_another_character_set_has_no_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal would not understand what mosh-client writes."""
    only(*COMMON_LOCALES, monkeypatch=monkeypatch)
    with pytest.raises(UnavailableError, match=r"LANG=xx\.ISO-8859-1 is not installed here"):
        charset({"LANG": "xx.ISO-8859-1"})


@pytest.mark.parametrize(
    ("environment", "installed", "sentence"),
    [
        ({"LANG": "C", "LC_CTYPE": ""}, True, "and the character set is ANSI (LANG=C): set LANG to one"),
        ({}, True, "and the character set is ANSI: set LANG to one"),
        (
            {"LC_ALL": "C", "LC_CTYPE": "C.UTF-8", "LANG": "C.UTF-8"},
            True,
            "and the character set is ANSI (LC_ALL=C): set LC_ALL to one",
        ),
        ({"LC_CTYPE": "xx.ISO-8859-1", "LANG": "x"}, False, "and LC_CTYPE=xx.ISO-8859-1 is not installed here: set"),
        ({"LANG": "xx.UTF-8"}, False, "and LANG=xx.UTF-8 is not installed here: set LANG to one"),
    ],
)
def test_the_variable_that_decides_is_named(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], installed: bool, sentence: str
) -> None:
    """That is the one to set: another would change nothing."""
    only(*([""] if installed else []), monkeypatch=monkeypatch, codeset="ANSI")
    with pytest.raises(UnavailableError) as caught:
        charset(environment)
    assert f"mosh-client needs a UTF-8 locale, {sentence}" in str(caught.value)


@pytest.mark.parametrize(("script", "colors"), [("echo 256", 256), ("echo many", 0), ("echo -1", 0), ("true", 0)])
def test_colours_are_counted_by_mosh_client(tmp_path: Path, script: str, colors: int) -> None:
    """Where it counts none, there are none."""
    assert ColorCount(client(tmp_path, script)).colors() == colors


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'unknown  terminal' >&2; exit 1", "unknown terminal"),
        ("echo unknown; exit 1", "unknown"),
        ("exit 3", "exit status 3"),
        ("exec sleep 100", "it does not answer"),
    ],
)
def test_a_mosh_client_that_cannot_work_here_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """It is found out before ssh is started."""
    monkeypatch.setattr(terminal, "COUNT_TIMEOUT", 0.2 if "sleep" in script else 10.0)
    program = client(tmp_path, script)
    with pytest.raises(UnavailableError) as caught:
        ColorCount(program).colors()
    assert str(caught.value) == f"{program} cannot work on this terminal: {words}"


@pytest.mark.parametrize(
    ("mode", "words"), [(None, "is not installed here"), (0o644, "cannot be run: Permission denied")]
)
def test_a_mosh_client_that_is_not_there_is_said(tmp_path: Path, mode: int | None, words: str) -> None:
    """The sentence says what to install, or what is wrong with it."""
    if mode is not None:
        (tmp_path / "client").write_text("#!/bin/sh\n")
        (tmp_path / "client").chmod(mode)
    with pytest.raises(UnavailableError, match=words):
        ColorCount(str(tmp_path / "client"))


def test_a_terminal_gets_its_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed mosh-client leaves it without echo and line ends."""
    ours, theirs = pty.openpty()
    with open(theirs, "r+b", buffering=0) as screen:
        monkeypatch.setattr("sys.stdin", screen)
        monkeypatch.setattr("sys.stdout", screen)
        restore = terminal.saved()
        before = termios.tcgetattr(theirs)
        changed = termios.tcgetattr(theirs)
        changed[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(theirs, termios.TCSANOW, changed)
        restore()
        assert termios.tcgetattr(theirs)[3] == before[3]
        assert b"\033[?25h" in os.read(ours, 1000)
    os.close(ours)


def test_without_a_terminal_there_is_nothing_to_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that a program started has none, and may have no standard input at all."""
    monkeypatch.setattr("sys.stdin", None)
    terminal.saved()()
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        terminal.saved()()


def client(folder: Path, script: str) -> str:
    """A program in the place of mosh-client."""
    (folder / "client").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "client").chmod(0o755)
    return str(folder / "client")
