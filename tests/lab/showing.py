"""A terminal with a small program, written by the test, which decides what each key shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.client import READY
from tests.lab.machine import Machine
from tests.lab.terminal import Terminal

BEFORE: Final = f"""
import os, time, tty

def keys():
    while key := os.read(0, 1).decode():
        yield key

def show(text):
    os.write(1, text.encode())

tty.setraw(0)
show({READY!r})
"""


@contextmanager
def showing(folder: Path, program: str) -> Iterator[Terminal]:
    """`program` is Python: `keys()` yields what is typed, `show(text)` writes; the cursor stands after "READY"."""
    here, script = Machine("here", folder), folder / "showing.py"
    script.write_text(BEFORE + program)
    with Terminal(here, [sys.executable, "-I", "-S", script]) as terminal:
        terminal.wait_for(READY)
        yield terminal
