"""What a service can see: the system's runs as a user of its own, without the homes and with a /tmp of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tunneld.errors import RightsError, UnavailableError, UsageError
from tunneld.profile import Profile, directories, folders
from tunneld.systemd.service import Scope

# ProtectHome= and PrivateTmp= of the unit.
HIDDEN = tuple(map(Path, ("/root", "/home", "/run/user", "/tmp", "/var/tmp")))


def require(scope: Scope, words: tuple[str, ...], profiles: Iterable[Profile]) -> None:
    """A service of this scope can start the program, and read the profiles.

    Raises:
        UnavailableError, UsageError, RightsError: as below.
    """
    for profile in profiles:
        require_profile(scope, profile)
    if not scope.user:
        require_program(words)


def require_program(words: tuple[str, ...]) -> None:
    """The program, its Python and its libraries can be reached by every user.

    Raises:
        UnavailableError: they cannot; the text says what to do.
    """
    for path in (words[0], sys.executable, sys.prefix, sys.base_prefix):
        real = Path(os.path.realpath(path))
        closed = next((folder for folder in HIDDEN if real.is_relative_to(folder)), None) or _closed(real)
        if closed is not None:
            raise UnavailableError(
                f"the service runs as a user of its own, for whom {closed} is closed, and {real} lies in it: install "
                "tunneld for everybody (python3 -m venv /opt/tunneld && "
                "/opt/tunneld/bin/pip install 'tunneld[systemd]'), then /opt/tunneld/bin/tunneld enable NAME"
            )


def require_profile(scope: Scope, profile: Profile) -> None:
    """The service finds the profile by its name, and may read it.

    Raises:
        UsageError: it lies elsewhere.
        RightsError: it is for other eyes alone.
    """
    searched = directories() if scope.user else (folders.SYSTEM,)
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
    """The first folder on the way that others may not enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)
