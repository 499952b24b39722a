"""Why no session came to be, in words for the person who waits for it."""

from __future__ import annotations

import re
from typing import Any

from tunneld.errors import TunneldError, UnavailableError
from tunneld.shipped.pack import NO_PYTHON, OLDEST_PYTHON

SSH_FAILED = 255
"""Exit status of ssh when it is ssh that failed, not the far program (ssh(1))."""

TOO_OLD = re.compile(r"tunneld needs Python [\d.]+ or newer here, and found ([\w.+]+)")

LONGEST_WORDS = 200

WANTED = ".".join(map(str, OLDEST_PYTHON))


class EndedSilently(Exception):
    """There is nothing to say: whoever ended it knows, or has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def unexpected(host: str, status: int, said: str, noise: str) -> Exception:
    """ssh ended before the far agent answered. `said` is on its standard error, `noise` on its standard output."""
    old = TOO_OLD.search(said)
    words = last_line(noise) or last_line(said)
    if status == SSH_FAILED:
        return EndedSilently(status)
    if old:
        return UnavailableError(f"{host} has Python {old[1]} as python3: install {WANTED} or newer there")
    if status == NO_PYTHON:
        return UnavailableError(
            f"{host} has no python3: install it there, {WANTED} or newer (`apt install python3`, `dnf install python3`)"
        )
    if status < 0:
        return UnavailableError(f"ssh to {host} was ended by signal {-status}")
    if words:
        return UnavailableError(f"{host} does not let our agent run (exit status {status}); it says: {words}")
    return UnavailableError(f"{host} does not let our agent run: its session ended with status {status}")


def unserved(host: str, answer: dict[str, Any]) -> TunneldError:
    """The far agent runs, and mosh-server does not."""
    sentence = _plain(str(answer.get("error", "its agent's answer makes no sense")))[:500]
    return UnavailableError(
        HINTS.get(str(answer.get("code")), "{host}: {sentence}").format(host=host, sentence=sentence)
    )


HINTS = {
    "no-mosh-server": "{host} has no mosh-server: install mosh there (`apt install mosh`, `dnf install mosh`); "
    "if it is in an unusual place, say where with --server",
    "no-utf8": "{host} has no UTF-8 locale, which mosh-server needs: generate one there, or install one "
    "(C.UTF-8 will do)",
}
"""Sentences that can be better here than there, by the answer's code."""


def last_line(text: str) -> str:
    """The last words of a program, as far as they are fit for a terminal."""
    lines = [line for line in text.splitlines() if line.strip()]
    return _plain(lines[-1])[:LONGEST_WORDS] if lines else ""


def _plain(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    return "".join(filter(str.isprintable, " ".join(text.split())))
