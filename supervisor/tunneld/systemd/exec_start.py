"""Where the tunneld program is, in words for a unit."""

from __future__ import annotations

import os
import sys
from pathlib import Path

USUAL = Path("/usr/bin/tunneld")  # as the units have it


def command() -> tuple[str, ...]:
    """How this program was started, in words that start it again from anywhere."""
    started = Path(os.path.abspath(sys.argv[0]))
    if started.name == "__main__.py":  # python -m tunneld
        return (sys.executable, "-m", "tunneld")
    return (str(USUAL if _is_same(started, USUAL) else started),)


def exec_start(words: tuple[str, ...]) -> str:
    """The words in a unit's syntax (systemd.service(5), COMMAND LINES)."""
    return " ".join(_quoted(word) for word in words)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(each in word for each in " \t\"'\\;") else escaped
