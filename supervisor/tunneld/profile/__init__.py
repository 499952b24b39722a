"""Profiles: what the user wrote, one TOML file per tunnel, read and checked.

The values are frozen dataclasses. Only load(), load_all() and schema() import pydantic, which is slow to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunneld.profile.address import ForwardAddress, PortRange, TcpAddress, UnixAddress, parse_address
from tunneld.profile.folders import find_profile, profile_files, profile_folders, profile_name
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
    "find_profile",
    "load",
    "load_all",
    "parse_address",
    "profile_files",
    "profile_folders",
    "profile_name",
    "schema",
]


def load(name_or_path: str) -> Profile:
    """The profile of this name or path.

    Raises:
        ProfileError: everything that is wrong with it.
    """
    from tunneld.profile import read

    return read.load(name_or_path)


def load_all(names: Sequence[str]) -> tuple[Profile, ...]:
    """The profiles of these names or paths, which shall run side by side.

    Raises:
        ProfileError: everything that is wrong with them, and where they conflict.
    """
    from tunneld.profile import read

    return read.load_all(names)


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a profile, as a value for json.dumps."""
    from tunneld.profile import document

    return document.schema()
