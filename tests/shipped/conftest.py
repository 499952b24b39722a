"""What tests of shipped programs share: the Pythons that run them, and a clock that the test sets."""

from __future__ import annotations

import os
import sys

import pytest

from tests.oldest import oldest_python


@pytest.fixture(params=["this Python", "Python 3.9"])
def any_python(request: pytest.FixtureRequest) -> str:
    """The path of the Python that runs these tests, and of the oldest that a shipped program runs on."""
    return oldest_python() if request.param == "Python 3.9" else os.path.realpath(sys.executable)


class Clock:
    """Seconds that stand still until a test changes `now`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()
