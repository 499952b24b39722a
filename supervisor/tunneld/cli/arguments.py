"""argparse that answers a wrong word with the nearest right one, and ends with the exit code of sysexits(3).

Tested in tests/cli/test_main.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn

from tunneld.errors import UsageError


class Parser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print the usage and exit with 2. Options must be written in full."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("allow_abbrev", False)  # so that a new option never changes what an old line means
        super().__init__(**settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(None, unknown("choice", str(value), action.choices))


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """`unknown command 'stauts': did you mean 'status'?`. The list of known words follows where none is near."""
    from difflib import get_close_matches  # slow to import, and needed only after a mistake

    known = list(known)
    near = get_close_matches(word, known, n=1)
    return f"unknown {what} {word!r}: " + (f"did you mean {near[0]!r}?" if near else f"write one of {', '.join(known)}")
