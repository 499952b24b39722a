"""A machine to go to, for tests of whole sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosh.place import Place, place


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Place]:
    """A machine with everything that this one has, and a person who may log in."""
    with place(tmp_path) as made:
        yield made
