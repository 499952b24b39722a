"""Files lent to a service as credentials (systemd.exec(5), LoadCredential=): where to read what a profile names.

A service runs as a user of its own and sees neither root's home nor root's keys. systemd, as root, copies the files
that it needs into $CREDENTIALS_DIRECTORY. Profiles and messages keep the files' own paths; only who opens one
asks here.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

# tunneld.service lends this whole folder as `keys`: each file in it is the credential `keys_FILE`.
KEYS = Path("/etc/tunneld/keys")

# What a service is lent in the place of a file that is gone when it starts: a comment, in each of their formats.
ABSENT = "#"

# SSH looks for these beside a private key; beside its copy they have to be found as well.
_BESIDE = ("-cert.pub", ".pub")


def credential_id(path: Path) -> str:
    """The credential's name for the file of this absolute path: `id_ed25519-1f0c8a9b2d3e`, `...-cert.pub` beside it.

    It holds the file's name for who looks, and a digest of the path, so that two files never share one.
    """
    text = str(path)
    beside = next((end for end in _BESIDE if text.endswith(end)), "")
    base = text.removesuffix(beside)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(base))[:64]
    return f"{name}-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}{beside}"


def readable(path: Path) -> Path:
    """Where to open the file of this absolute path: its copy, if it was lent to this service, else the file itself."""
    if not is_lending():
        return path
    folder = os.environ["CREDENTIALS_DIRECTORY"]
    # os.path: a file that nobody may look at is not there, and no PermissionError.
    names = [credential_id(path), *([f"keys_{path.name}"] if path.parent == KEYS else [])]
    return next((copy for name in names if os.path.exists(copy := Path(folder, name))), path)


def is_lending() -> bool:
    """Whether this is a service that gets files so; what it does not get it may not be able to see."""
    return bool(os.environ.get("CREDENTIALS_DIRECTORY"))


def was_absent(path: Path) -> bool:
    """Whether the file was gone when this service was started."""
    return is_lent(path) and readable(path).read_bytes() == ABSENT.encode()


def is_lent(path: Path) -> bool:
    """Whether this service reads a copy, made when it was started."""
    return readable(path) != path
