"""What can go wrong: the text is for a person, the exit code for a script.

The exit codes are those of sysexits(3), so that systemd and shell scripts can tell the errors apart.

Tested in tests/cli/test_main.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path  # slow to import, and `tunneld mosh` does without


class TunneldError(Exception):
    """An error whose text is for the user. The command line prints that text, and no traceback."""

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE: nothing more exact is known


class UsageError(TunneldError):
    """The command line makes no sense, or asks for something that does not exist."""

    exit_code = 64  # EX_USAGE


class UnavailableError(TunneldError):
    """Something that the command needs is missing: a daemon, a bus, a program."""

    exit_code = 69  # EX_UNAVAILABLE


class BusyError(TunneldError):
    """Another process holds what this one needs."""

    exit_code = 75  # EX_TEMPFAIL


class RightsError(TunneldError):
    """The user lacks a right that the command needs."""

    exit_code = 77  # EX_NOPERM


class Problem(NamedTuple):
    """One mistake in a profile.

    `line` counts from 1. `key` is dotted (`forward[2].listen`); it is empty where the whole file is meant.
    """

    file: Path
    line: int
    key: str
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:"
        return f"{where} {self.key}: {self.text}" if self.key else f"{where} {self.text}"


class ProfileError(TunneldError):
    """All problems of one or more profiles, each on a line of its own."""

    exit_code = 78  # EX_CONFIG

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems
