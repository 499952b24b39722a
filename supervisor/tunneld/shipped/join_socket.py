"""The door of an agent: a Unix socket in a folder that only its user can enter.

A process that another SSH session started comes in, says a few words, and passes its standard input and output on as
file descriptors; the connection that it came by is kept, since its end tells that process to leave.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
from typing import NamedTuple

from tunneld.shipped.private_folder import is_own

LONGEST_ROOT = 70
"""Bytes: a Unix socket's path holds 107 (104 on BSD), of which our own names take up to 36."""

LONGEST_WORDS = 256
"""Bytes of what a visitor says."""

WAITING = 6
"""Visitors that the system lets wait; each has already spoken when it comes."""


class Joiner(NamedTuple):
    """What a process brought: its few words, its input and its output, and the connection whose end it awaits. The
    last three are file descriptors, and belong to whoever has this."""

    words: bytes
    fds: tuple[int, int]
    keeper: int

    def turn_away(self) -> None:
        """Close everything that it brought; its process ends."""
        for fd in (*self.fds, self.keeper):
            os.close(fd)


class JoinSocket:
    """`path` is where to knock, `socket` what to wait on, `folder` has room for other sockets."""

    def __init__(self, kind: str, place: str | None = None) -> None:
        """The folder is named after `kind` ("agent"); those of killed processes of this kind are removed.

        Raises:
            OSError: there is no place for it.
        """
        prefix, place = f"tunneld-{kind}-", place or root()
        sweep(place, prefix)
        self.folder = f"{place}/{prefix}{os.getpid()}-{os.urandom(3).hex()}"
        self.path = f"{self.folder}/join"
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            os.mkdir(self.folder, 0o700)
            self.socket.bind(self.path)
            self.socket.listen(WAITING)
        except BaseException:  # a signal may end the program here
            self.close()
            raise
        self.socket.setblocking(False)

    def admit(self) -> Joiner | None:
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
            return Joiner(words, (fds[0], fds[1]), keeper.detach())
        for fd in fds:
            os.close(fd)
        keeper.close()
        return None

    def close(self) -> None:
        self.socket.close()
        remove(self.folder)


def root(longest: int = LONGEST_ROOT) -> str:
    """Where temporary files go, if a Unix socket's path has room for it."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    return folder if len(os.fsencode(folder)) <= longest else "/tmp"


def sweep(folder: str, prefix: str = "") -> None:
    """Remove what killed processes left in `folder`: sockets, and folders of them, named PREFIX, a process and more.
    Other users may have put anything there, and it may be that nobody is to see it."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
    for name in names:
        found = re.match(rf"{prefix}([0-9]{{1,9}})[.-]", name)
        if found and _is_left(f"{folder}/{name}", int(found[1])):
            remove(f"{folder}/{name}")


def remove(path: str) -> None:
    """A socket, or a folder of them, if it is there; one that holds anything else is somebody's who gave it such a
    name."""
    with contextlib.suppress(OSError):
        for sock in _sockets(path):
            os.unlink(sock)
        if os.path.isdir(path):
            os.rmdir(path)


def _is_left(path: str, pid: int) -> bool:
    """Whether it is ours, and its process is neither here nor in a container that shares this place."""
    with contextlib.suppress(OSError):
        return is_own(os.lstat(path)) and not _lives(pid) and not any(map(_is_listened_to, _sockets(path)))
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _sockets(path: str) -> list[str]:
    paths = [f"{path}/{name}" for name in os.listdir(path)] if os.path.isdir(path) else [path]
    return [each for each in paths if stat.S_ISSOCK(os.lstat(each).st_mode)]


def _is_listened_to(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.setblocking(False)
        return knocking.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _is_stream(fd: int) -> bool:
    """A pipe or a socket; a selector takes no other files."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
