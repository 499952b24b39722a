"""What can go wrong, in words for a person, and the exit code that a script sees.

Exit codes follow sysexits(3), so that systemd and shell scripts can tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path  # slow to import, and `tunneld mosh` does without


class TunneldError(Exception):
    """A fault that its text explains to the user; the command line prints it and never a traceback."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE: nothing more exact is known


class UsageError(TunneldError):
    """The command line asks for something that does not exist."""

    exit_code = 64  # EX_USAGE


class UnavailableError(TunneldError):
    """Something that the command needs is not there: a daemon, a bus, a program."""

    exit_code = 69  # EX_UNAVAILABLE


class BusyError(TunneldError):
    """Another process holds what this one needs."""

    exit_code = 75  # EX_TEMPFAIL


class RightsError(TunneldError):
    """The user lacks a right that the command needs."""

    exit_code = 77  # EX_NOPERM


class Problem(NamedTuple):
    """One thing wrong in a profile. `line` counts from 1; `key` is dotted (`forward[2].listen`), empty for the file."""

    file: Path
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:"
        return f"{where} {self.key}: {self.text}" if self.key else f"{where} {self.text}"


class ProfileError(TunneldError):
    """Every problem of one or more profiles, a line each."""

    exit_code = 78  # EX_CONFIG

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
