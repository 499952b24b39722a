"""The command line that starts tunneld again, and how a unit writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunneld.systemd import exec_start as module
from tunneld.systemd.exec_start import exec_start, start_command


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("/opt/tunneld/bin/tunneld",), "/opt/tunneld/bin/tunneld"),
        (("/opt/my tools/tunneld",), '"/opt/my tools/tunneld"'),
        (("/opt/100%/py", "-m", "tunneld"), "/opt/100%%/py -m tunneld"),
        (('/opt/$a"b',), '"/opt/$$a\\"b"'),
        (("/opt/a;b",), '"/opt/a;b"'),
        (("/opt/a\\b",), '"/opt/a\\\\b"'),
    ],
)
def test_a_command_line_in_a_unit(words: tuple[str, ...], line: str) -> None:
    """systemd.service(5): specifiers, variables and quotes stand for themselves."""
    assert exec_start(words) == line


def test_a_relative_program_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd starts it in another folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/tunneld", "enable", "pi"])
    assert start_command() == (f"{tmp_path}/bin/tunneld",)


def test_a_module_is_started_by_its_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m tunneld` has no program file of its own."""
    monkeypatch.setattr(sys, "argv", ["/site/tunneld/__main__.py", "enable", "pi"])
    assert start_command() == (sys.executable, "-m", "tunneld")


def test_a_link_to_the_usual_program_is_the_usual_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The units name that place, so they need no drop-in."""
    usual = tmp_path / "usual"
    usual.touch()
    (tmp_path / "link").symlink_to(usual)
    monkeypatch.setattr(module, "USUAL", usual)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "link")])
    assert start_command() == (str(usual),)
