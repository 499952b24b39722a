"""The command line that starts this program again, and how a unit writes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

USUAL = Path("/usr/bin/tunneld")  # as the units have it


def start_command() -> tuple[str, ...]:
    """The command line of this process without its arguments, so that it works from any folder."""
    started = Path(os.path.abspath(sys.argv[0]))
    if started.name == "__main__.py":  # python -m tunneld
        return (sys.executable, "-m", "tunneld")
    return (str(USUAL if _is_same(started, USUAL) else started),)


def exec_start(words: tuple[str, ...]) -> str:
    """The command line `words` as a unit writes it (systemd.service(5), COMMAND LINES)."""
    return " ".join(_quoted(word) for word in words)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(each in word for each in " \t\"'\\;") else escaped
