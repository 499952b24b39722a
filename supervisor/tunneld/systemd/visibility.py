"""Which files a service can see. The system's service runs as a user of its own, sees no home, and has its own /tmp."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tunneld.errors import RightsError, UnavailableError, UsageError
from tunneld.profile import Profile, folders, profile_folders
from tunneld.systemd.service import Scope

# What ProtectHome= and PrivateTmp= of the unit hide.
HIDDEN = tuple(map(Path, ("/root", "/home", "/run/user", "/tmp", "/var/tmp")))


def require_visible(scope: Scope, words: tuple[str, ...], profiles: Iterable[Profile]) -> None:
    """Make sure that a service of this scope can start the command line `words`, and read the profiles.

    Raises:
        UnavailableError: it cannot reach the program.
        UsageError: it does not look for profiles where one lies.
        RightsError: it may not read a profile.
    """
    for profile in profiles:
        require_profile(scope, profile)
    if not scope.user:
        require_program(words)


def require_program(words: tuple[str, ...]) -> None:
    """Make sure that every user can reach the program, its Python and its libraries.

    Raises:
        UnavailableError: they cannot; its text says what to type.
    """
    for path in (words[0], sys.executable, sys.prefix, sys.base_prefix):
        real = Path(os.path.realpath(path))
        closed = next((folder for folder in HIDDEN if real.is_relative_to(folder)), None) or _closed(real)
        if closed is not None:
            raise UnavailableError(
                f"the service runs as a user of its own, for whom {closed} is closed, and {real} lies in it. In the "
                "clone of tunneld's sources, type python3 -m venv /opt/tunneld && "
                "/opt/tunneld/bin/pip install '.[systemd]', then /opt/tunneld/bin/tunneld enable NAME"
            )


def require_profile(scope: Scope, profile: Profile) -> None:
    """Make sure that the service finds the profile by its name, and may read it.

    Raises:
        UsageError: the profile lies elsewhere.
        RightsError: the profile's mode forbids it.
    """
    searched = profile_folders() if scope.user else (folders.SYSTEM_PROFILES,)
    if profile.file.parent not in searched:
        whose = "your service" if scope.user else "the system's service"
        raise UsageError(
            f"{whose} looks for profiles in {' and '.join(map(str, searched))}: mv {profile.file} {searched[0]}/"
        )
    if not scope.user and not profile.file.stat().st_mode & 0o004:
        raise RightsError(
            "the service runs as a user of its own, which must read the profile (but not the key): "
            f"chmod a+r {profile.file}"
        )


def _closed(path: Path) -> Path | None:
    """The first folder on the path that other users may not enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
