"""Profiles: what the user wrote, one TOML file per tunnel, read and checked.

The values are plain frozen dataclasses. pydantic is imported by load(), load_all() and schema() alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunneld.profile.address import ForwardAddress, PortRange, TcpAddress, UnixAddress, parse_address
from tunneld.profile.folders import directories, find, found, name_of
from tunneld.profile.overlap import conflicts
from tunneld.profile.toml_text import as_toml
from tunneld.profile.values import Canary, Direction, Forward, Keepalive, Mode, Mosh, Profile, Relay

__all__ = [
    "Canary",
    "Direction",
    "Forward",
    "ForwardAddress",
    "Keepalive",
    "Mode",
    "Mosh",
    "PortRange",
    "Profile",
    "Relay",
    "TcpAddress",
    "UnixAddress",
    "as_toml",
    "conflicts",
    "directories",
    "find",
    "found",
    "load",
    "load_all",
    "name_of",
    "parse_address",
    "schema",
]


def load(name_or_path: str) -> Profile:
    """The profile of this name or path. Raises ProfileError with every problem."""
    from tunneld.profile import read

    return read.load(name_or_path)


def load_all(names: Sequence[str]) -> tuple[Profile, ...]:
    """Profiles that run side by side. Raises ProfileError with every problem, conflicts among them included."""
    from tunneld.profile import read

    return read.load_all(names)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a profile."""
    from tunneld.profile import document

    return document.schema()
