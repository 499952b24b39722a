"""Whether the files that were lent to a running service have changed since systemd copied them, at its start."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tunneld.profile import Profile
from tunneld.systemd.credentials import credential_id, files_of
from tunneld.systemd.service import Service

# systemd puts the copies into a folder of the unit's name (systemd.exec(5), CREDENTIALS).
COPIES = Path("/run/credentials")


def is_stale(service: Service, profiles: Iterable[Profile]) -> bool:
    """Whether a copy differs from its file, or is missing. It takes root to read the copies."""
    if service.scope.user:
        return False
    folder = COPIES / service.unit
    return any(_differ(path, folder / credential_id(path)) for profile in profiles for path in files_of(profile))


def _differ(path: Path, copy: Path) -> bool:
    try:
        return path.read_bytes() != copy.read_bytes()
    except FileNotFoundError:
        return True
