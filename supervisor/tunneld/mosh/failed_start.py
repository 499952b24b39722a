"""Why no session could start, in words for the person who waits for it."""

from __future__ import annotations

import re
from typing import Any

from tunneld.core.printable import LONGEST_QUOTE, one_line
from tunneld.errors import TunneldError, UnavailableError
from tunneld.shipped.pack import NO_PYTHON, OLDEST_PYTHON

SSH_FAILED = 255
"""ssh's exit status when ssh itself failed, and not the program that it runs on DEST (ssh(1))."""

TOO_OLD = re.compile(r"tunneld needs Python [\d.]+ or newer here, and found ([\w.+]+)")

LONGEST_ERROR = 500
"""Characters of our agent's own error that a message repeats."""

NEEDED_PYTHON = ".".join(map(str, OLDEST_PYTHON))


class SilentExit(Exception):
    """End with this exit status and without a word: the person ended the session, or ssh has said why it failed."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def unexpected(host: str, status: int, said: str, noise: str) -> Exception:
    """ssh ended with `status` before our agent answered; `said` is its standard error, `noise` its standard output."""
    old = TOO_OLD.search(said)
    words = last_line(noise) or last_line(said)
    if status == SSH_FAILED:
        return SilentExit(status)
    if old:
        return UnavailableError(f"{host} has Python {old[1]} as python3: install {NEEDED_PYTHON} or newer there")
    if status == NO_PYTHON:
        return UnavailableError(
            f"{host} has no python3: install it there, {NEEDED_PYTHON} or newer "
            "(`apt install python3`, `dnf install python3`)"
        )
    if status < 0:
        return UnavailableError(f"ssh to {host} was ended by signal {-status}")
    if words:
        return UnavailableError(f"{host} does not let our agent run (exit status {status}); it says: {words}")
    return UnavailableError(
        f"{host} does not let our agent run: its session ended with status {status}. Is there a forced command "
        "(command= before the key, ForceCommand), or no shell? Use an account that may run commands"
    )


def unserved(host: str, answer: dict[str, Any]) -> TunneldError:
    """Our agent runs on DEST and has not started mosh-server; `answer` is what the agent said."""
    sentence = one_line(str(answer.get("error", "its agent's answer makes no sense")), LONGEST_ERROR)
    return UnavailableError(
        HINTS.get(str(answer.get("code")), "{host}: {sentence}").format(host=host, sentence=sentence)
    )


HINTS = {
    "no-mosh-server": "{host} has no mosh-server: install mosh there (`apt install mosh`, `dnf install mosh`); "
    "if it is in an unusual place, say where with --server",
    "no-utf8": "{host} has no UTF-8 locale, which mosh-server needs: generate one there, or install one "
    "(C.UTF-8 will do)",
}
"""Sentences for the codes of an agent's answer: here more is known about what to type than on DEST."""


def last_line(text: str) -> str:
    """The last line of a program's output that is not blank, shortened, and safe to show on a terminal."""
    lines = [line for line in text.splitlines() if line.strip()]
    return one_line(lines[-1], LONGEST_QUOTE) if lines else ""
