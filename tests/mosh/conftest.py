"""Machines to go to, for tests with a real ssh."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mosh.jumping import Jump, jumping
from tests.mosh.place import Place, place


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Place]:
    """A machine with everything that this one has, and a person who may log in."""
    with place(tmp_path) as made:
        yield made


@pytest.fixture
def jump(tmp_path: Path) -> Iterator[Jump]:
    """A jump host, and a person who may log in."""
    with jumping(tmp_path, {}) as made:
        yield made
