"""What load() says about a file, for the tests that look at its words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunneld.errors import ProfileError
from tunneld.profile import load

RELAY = '[relay]\nhost = "r"\n'
FORWARD = '[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'


def problems(file: Path) -> list[str]:
    """What load() says about the file: a line for each problem, without the file's name."""
    with pytest.raises(ProfileError) as caught:
        load(str(file))
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}:") for line in lines)
    assert len(lines) == len(caught.value.problems)
    return [line.removeprefix(f"{file}:") for line in lines]


def assert_said(problem: str, line: int, pattern: str) -> None:
    """A problem is at this line, and its words start as the pattern says."""
    assert re.match(f"{line}: {pattern}", problem), problem
