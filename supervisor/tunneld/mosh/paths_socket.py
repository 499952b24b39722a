"""The window into a running session: a Unix socket that gives one line of JSON to whoever of the same user connects."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

from tunneld.shipped.join_socket import sweep
from tunneld.status import json_socket

PATHS_TIMEOUT = 1.0
"""Seconds for a session's whole answer, which takes milliseconds."""

LONGEST_PATHS_JSON = 1 << 20
"""Bytes that a session's answer may have; most have about three thousand."""

NAME = "tunneld-mosh"

LONGEST_FOLDER = 80
"""Bytes: a Unix socket's path holds 103 on BSD, of which a window's own name takes up to 20."""


class PathsSocket:
    """Listens in `folder`; `fd` is readable when somebody looks in, and `answer` then serves them."""

    def __init__(self, folder: str, say: Callable[[], dict[str, Any]]) -> None:
        """
        Raises:
            OSError: it cannot be made there.
        """
        self._say = say
        self.path = os.path.join(folder, f"{os.getpid()}-{os.urandom(3).hex()}.sock")
        self._listener = json_socket.listen(self.path)
        self.fd = self._listener.fileno()

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            visitor, _ = self._listener.accept()
            with visitor:
                visitor.setblocking(False)  # a fresh socket's buffer holds it all; who does not read gets less
                visitor.send(json.dumps(self._say(), separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def folders() -> list[str]:
    """Where this user's windows may be: the login's own folder, if there is one for sockets, and one in /tmp."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    mine = [os.path.join(session, NAME)] if session else []
    return [*(each for each in mine if len(os.fsencode(each)) <= LONGEST_FOLDER), f"/tmp/{NAME}-{os.getuid()}"]


def prepare() -> str:
    """The folder for a new window, for its owner alone, and without what killed sessions left there.

    Raises:
        OSError: none can be made, or it is somebody else's.
    """
    error = None
    for folder in folders():
        try:
            os.makedirs(folder, 0o700, exist_ok=True)
        except OSError as one:
            error = one
            continue
        if _is_private(folder):
            sweep(folder)
            return folder
    raise error or PermissionError(f"{folders()[-1]} is somebody else's")


def look() -> Iterator[dict[str, Any]]:
    """What this user's running sessions say; what a killed one left is passed over, and what others put in /tmp."""
    for folder in folders():
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder) if _is_private(folder) else ()):
                if name.endswith(".sock"):
                    with contextlib.suppress(OSError, ValueError):
                        path = os.path.join(folder, name)
                        yield json_socket.ask(path, timeout=PATHS_TIMEOUT, longest=LONGEST_PATHS_JSON)


def _is_private(folder: str) -> bool:
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
