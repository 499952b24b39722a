"""`tunneld demo` for tests: the same story, with fewer keys, and without the pauses that only a reader needs.

Run as a program, on the machine of tests/isolated.py. A silent relay is given up after 1.2 s instead of 3.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

from tests import isolated
from tunneld.cli import main
from tunneld.demo import leftover, stage, story
from tunneld.profile import Keepalive, Profile, load


def load_impatient(name: str) -> Profile:
    """The profile as the demo wrote it, with a keepalive that no file may ask for."""
    return replace(load(name), keepalive=Keepalive(interval=0.4, count=2))


if __name__ == "__main__":
    isolated.move_system_folders(Path(os.environ[isolated.FOLDER]), isolated.put)
    with (
        mock.patch.object(stage, "load", load_impatient),
        mock.patch.object(story, "KEYS_TO_MEASURE", "abc"),
        mock.patch.object(story, "SHORTEST_CUT", 1.5),
        mock.patch.object(leftover, "TERM_GRACE", 0.1),
    ):
        sys.exit(main(["demo"]))
