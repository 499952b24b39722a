"""The window into a running session: a Unix socket that gives one line of JSON to whoever of the same user connects."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tunneld.shipped.join_socket import sweep
from tunneld.shipped.private_folder import is_private, make_private

PATIENCE = 1.0
"""Seconds for a session's answer, which takes milliseconds."""

LONGEST = 1 << 20
"""Bytes of an answer at most; one has about three thousand."""

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
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            self._listener.bind(self.path)
            self._listener.listen(8)
        except BaseException:
            self._listener.close()
            raise
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
    return [*(each for each in mine if len(os.fsencode(each)) <= LONGEST_FOLDER), f"/tmp/{NAME}-{os.geteuid()}"]


def prepare() -> str:
    """The folder for a new window, for its owner alone, and without what killed sessions left there.

    Raises:
        OSError: none can be made, or it is somebody else's.
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


def look() -> Iterator[dict[str, Any]]:
    """What this user's running sessions say; what a killed one left is passed over, and what others put in /tmp."""
    for folder in folders():
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder) if is_private(os.lstat(folder)) else ()):
                if name.endswith(".sock"):
                    yield from _ask(os.path.join(folder, name))


def _ask(path: str) -> Iterator[dict[str, Any]]:
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(PATIENCE)
        asking.connect(path)
        answer = bytearray()
        while len(answer) < LONGEST and (part := asking.recv(65536)):
            answer += part
        value = json.loads(answer)
        if isinstance(value, dict):
            yield value
