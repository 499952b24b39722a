"""Files that systemd lends to a service as credentials (systemd.exec(5), LoadCredential=): where to read them.

The system's service runs as a user of its own and sees neither root's home nor root's keys. systemd, as root, copies
the files that the service needs into $CREDENTIALS_DIRECTORY. Profiles and messages go on naming the files themselves;
code that opens one asks here for the path of its copy.

Tested in tests/systemd/test_credentials.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

# tunneld.service is lent this whole folder as `keys`: each file in it is the credential `keys_FILE`.
KEYS_FOLDER = Path("/etc/tunneld/keys")

# What a service is lent instead of a file that is gone when the service starts. It is a comment in known_hosts, in
# ssh_config and in a public key's file.
ABSENT = "#"

# SSH looks for files with these endings beside a private key, so they have to lie beside the key's copy as well.
_BESIDE = ("-cert.pub", ".pub")


def credential_id(path: Path) -> str:
    """The credential's name for the file at this absolute path, as `id_ed25519-1f0c8a9b2d3e` or `...3e-cert.pub`.

    It has the file's name in it, for people, and a digest of the path, so that no two files share a credential.
    """
    text = str(path)
    beside = next((end for end in _BESIDE if text.endswith(end)), "")
    base = text.removesuffix(beside)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", os.path.basename(base))[:64]
    return f"{name}-{hashlib.sha256(os.fsencode(base)).hexdigest()[:12]}{beside}"


def readable(path: Path) -> Path:
    """Where to open the file at this absolute path: its copy if this service was lent one, else the file itself."""
    if not is_lending():
        return path
    folder = os.environ["CREDENTIALS_DIRECTORY"]
    # os.path.exists() is False where Path.exists() raises PermissionError.
    names = [credential_id(path), *([f"keys_{path.name}"] if path.parent == KEYS_FOLDER else [])]
    return next((copy for name in names if os.path.exists(copy := Path(folder, name))), path)


def is_lending() -> bool:
    """Whether this process is a service that systemd lends files to; it may not see any other file."""
    return bool(os.environ.get("CREDENTIALS_DIRECTORY"))


def was_absent(path: Path) -> bool:
    """Whether the file was gone when this service started."""
    return is_lent(path) and readable(path).read_bytes() == ABSENT.encode()


def is_lent(path: Path) -> bool:
    """Whether this service reads a copy of the file, made when the service started."""
    return readable(path) != path
