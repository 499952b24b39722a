"""Finds the unit files that we ship: in `units/` of the sources, or in its copy in an installed package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def unit_files() -> Path:
    """The folder with tunneld@.service, tunneld.service, user/, tunneld.sysusers and tunneld.tmpfiles."""
    packaged = _HERE / "files"
    return packaged if packaged.is_dir() else _HERE.parents[2] / "units"
