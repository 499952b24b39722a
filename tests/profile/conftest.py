"""A profile on disk, written as a person would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a profile's text, by default as `pi.toml`; return its file."""

    def write(text: str | bytes, name: str = "pi.toml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return file

    return write
