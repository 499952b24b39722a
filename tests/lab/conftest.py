"""The lab's fixtures. Where the lab cannot run, its tests are skipped with the reason; with `CI` set they fail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import booted, coturn, requirements
from tests.lab.net import Lab


@pytest.fixture(scope="session")
def able() -> None:
    _require(requirements.missing())


@pytest.fixture(scope="session")
def able_to_boot(able: None) -> None:
    _require(booted.missing())


@pytest.fixture(scope="session")
def able_to_reflect(able: None) -> None:
    _require(coturn.missing())


def _require(missing: tuple[str, ...]) -> None:
    lacks = "; ".join(missing)
    if lacks and os.environ.get("CI"):
        pytest.fail(f"the lab cannot run, and CI may not skip it: {lacks}")
    if lacks:
        pytest.skip(f"the lab cannot run: {lacks}")


@pytest.fixture
def lab(able: None, tmp_path: Path) -> Iterator[Lab]:
    """A new made-up internet for one test."""
    with Lab(tmp_path) as built:
        yield built
