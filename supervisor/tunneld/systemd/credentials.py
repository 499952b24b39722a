"""Which files a profile's service needs as credentials, and the drop-in that lends them to the service.

The system's service runs as the user `tunneld`, which can read neither root's keys nor root's home.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tunneld.errors import UsageError
from tunneld.profile import Profile, Relay
from tunneld.profile.lent_files import ABSENT, credential_id

__all__ = ["credential_id", "drop_in", "files_of"]

# The files that ssh uses where the profile names none, in the home of the user who enables the service.
USUAL_KEYS = tuple(f".ssh/{name}" for name in ("id_ed25519", "id_ecdsa", "id_rsa"))
USUAL_KNOWN_HOSTS = (".ssh/known_hosts", ".ssh/known_hosts2")
USUAL_CONFIG = ".ssh/config"

HEAD = "# Written by `tunneld enable`, and again when the profile changes: put changes of your own into another file.\n"


def files_of(profile: Profile, home: Path | None = None) -> tuple[Path, ...]:
    """The files to lend, as far as they exist on this machine now.

    `home` is the home of the user who enables the service. Files of /etc/ssh are left out: every user may read those.
    """
    home = Path(os.path.expanduser("~")) if home is None else home
    files = [path for relay in profile.relays for path in _named(relay, home)]
    return tuple(path for path in dict.fromkeys(files) if path.is_file())


def drop_in(profile: Profile, home: Path | None = None) -> str:
    """The text of a drop-in for the profile's service.

    Where a file is gone at the next start, the service starts all the same, and its status says what is missing.

    Raises:
        UsageError: no unit can hold a path like one of these.
    """
    lines = [line for path in files_of(profile, home) for line in _lines(path)]
    return "\n".join([f"{HEAD}[Service]", *lines, ""])


def _named(relay: Relay, home: Path) -> list[Path]:
    """The files that the profile names for this relay; where it names none, the usual ones."""
    keys = relay.identity or [home / name for name in USUAL_KEYS]
    beside = [key.with_name(key.name + end) for key in keys for end in ("-cert.pub", ".pub") if key.suffix != ".pub"]
    return [*keys, *beside, *_hosts(relay, home), *_config(relay, home)]


def _hosts(relay: Relay, home: Path) -> list[Path]:
    named = relay.known_hosts
    return [home / name for name in USUAL_KNOWN_HOSTS] if named is None else [named]


def _config(relay: Relay, home: Path) -> list[Path]:
    named = relay.ssh_config
    if isinstance(named, Path):
        return [named]
    return [home / USUAL_CONFIG] if named else []


def _lines(path: Path) -> Iterator[str]:
    text = os.path.abspath(path)
    if not text.isprintable() or text.endswith("\\"):
        raise UsageError(f"{text!r} cannot stand in a unit: give the file a plainer name")
    name = credential_id(path)
    yield f"LoadCredential={name}:{text.replace('%', '%%')}"
    yield f"SetCredential={name}:{ABSENT}"
