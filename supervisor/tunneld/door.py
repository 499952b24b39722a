"""The door of an agent: a Unix socket in a folder that only its user can enter.

A process that another SSH session started comes in, says a few words, and passes its standard input and output on as
file descriptors; the connection that it came by is kept, since its end tells that process to leave.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import NamedTuple

LONGEST_ROOT = 70
"""Bytes: a Unix socket's path holds 107 (104 on BSD), of which our own names take up to 36."""

LONGEST_WORDS = 256
"""Bytes of what a visitor says."""

WAITING = 6
"""Visitors that the system lets wait; each has already spoken when it comes."""


class Visitor(NamedTuple):
    """Who came in: what it said, its input and its output, and the connection whose end it awaits."""

    words: bytes
    fds: tuple[int, int]
    keeper: socket.socket

    def turn_away(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.keeper.close()


class Door:
    """`path` is where to knock, `socket` what to wait on."""

    def __init__(self, kind: str) -> None:
        """The folder is named after `kind` ("agent"); those of killed processes of this kind are removed.

        Raises:
            OSError: there is no place for it.
        """
        prefix = f"tunneld-{kind}-"
        sweep(root(), prefix)
        self._folder = f"{root()}/{prefix}{os.getpid()}-{os.urandom(4).hex()}"
        self.path = f"{self._folder}/join"
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            os.mkdir(self._folder, 0o700)
            self.socket.bind(self.path)
            self.socket.listen(WAITING)
        except BaseException:  # a signal may end the program here
            self.close()
            raise
        self.socket.setblocking(False)

    def admit(self) -> Visitor | None:
        """Let the next one in; None when nobody is there, or somebody who brought no two streams.

        Raises:
            OSError: no file descriptor is left, and whoever knocks goes on knocking.
        """
        try:
            keeper, _ = self.socket.accept()
        except BlockingIOError:
            return None
        keeper.settimeout(1.0)  # our own few lines are at the other end, and they have already spoken
        try:
            words, fds, _, _ = socket.recv_fds(keeper, LONGEST_WORDS, 2)
        except OSError:
            words, fds = b"", []
        if len(fds) == 2 and all(map(_is_stream, fds)):
            return Visitor(words, (fds[0], fds[1]), keeper)
        for fd in fds:
            os.close(fd)
        keeper.close()
        return None

    def close(self) -> None:
        self.socket.close()
        remove(self._folder)


def root(longest: int = LONGEST_ROOT) -> str:
    """Where temporary files go, if a Unix socket's path has room for it."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    return folder if len(os.fsencode(folder)) <= longest else "/tmp"


def sweep(folder: str, prefix: str) -> None:
    """Remove what processes left behind that were killed. Other users may have put anything there."""
    for name in os.listdir(folder):
        pid = name[len(prefix) :].partition("-")[0]
        if not name.startswith(prefix) or not pid.isdecimal():
            continue
        try:
            is_ours = os.lstat(f"{folder}/{name}").st_uid == os.geteuid()
            os.kill(int(pid), 0)
        except ProcessLookupError:
            if is_ours:
                remove(f"{folder}/{name}")
        except (OSError, OverflowError):
            continue


def remove(folder: str) -> None:
    """A folder of sockets, if it is there; one that holds anything else is somebody's who gave it such a name."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if stat.S_ISSOCK(os.lstat(f"{folder}/{name}").st_mode):
                os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


def _is_stream(fd: int) -> bool:
    """A pipe or a socket; a selector takes no other files."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
