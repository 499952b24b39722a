"""The paths socket of a running session: a JSON socket that tells its user which paths there are, for `--paths`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from tunneld.shipped.join_socket import sweep
from tunneld.shipped.private_folder import is_private, make_private
from tunneld.status import json_socket

PATHS_TIMEOUT = 1.0
"""Seconds for a session's whole answer, which takes milliseconds."""

LONGEST_PATHS_JSON = 1 << 20
"""Bytes that a session's answer may have; most have about three thousand."""

FOLDER_NAME = "tunneld-mosh"

LONGEST_FOLDER = 80
"""Bytes of a folder's path: a Unix socket's path holds 103 on BSD, and the socket's own name takes up to 20 of them."""


class PathsSocket:
    """Listens in `folder`, which `prepare` gives. `fd` is readable when somebody asks, and `answer` then answers."""

    def __init__(self, folder: str, say: Callable[[], dict[str, Any]]) -> None:
        """
        Raises:
            OSError: the socket cannot be made there.
        """
        self._say = say
        self.path = os.path.join(folder, f"{os.getpid()}-{os.urandom(3).hex()}.sock")
        self._listener = json_socket.listen(self.path)
        self.fd = self._listener.fileno()

    def answer(self) -> None:
        """Give one line of JSON to the next who asks."""
        with contextlib.suppress(OSError):
            visitor, _ = self._listener.accept()
            with visitor:
                visitor.setblocking(False)  # the buffer of a new socket holds the whole line: nobody is waited for
                visitor.send(json.dumps(self._say(), separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def folders() -> list[str]:
    """Where this user's paths sockets may be: in the login's own runtime folder, if it has one, and in /tmp."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    mine = [os.path.join(session, FOLDER_NAME)] if session else []
    return [*(each for each in mine if len(os.fsencode(each)) <= LONGEST_FOLDER), f"/tmp/{FOLDER_NAME}-{os.geteuid()}"]


def prepare() -> str:
    """A folder for a new socket, which only its owner can enter. What killed sessions left there is removed.

    Raises:
        OSError: no folder can be made, or the one in /tmp is somebody else's.
    """
    error = OSError("there is no folder for it")
    for folder in folders():
        try:
            make_private(folder)
        except OSError as fault:
            error = fault
            continue
        sweep(folder)
        return folder
    raise error


def running_sessions() -> Iterator[dict[str, Any]]:
    """What each of this user's running sessions says. Sockets of killed sessions and folders of others are skipped."""
    for folder in folders():
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder) if is_private(os.lstat(folder)) else ()):
                if name.endswith(".sock"):
                    with contextlib.suppress(OSError, ValueError):
                        path = os.path.join(folder, name)
                        yield json_socket.ask(path, timeout=PATHS_TIMEOUT, longest=LONGEST_PATHS_JSON)
