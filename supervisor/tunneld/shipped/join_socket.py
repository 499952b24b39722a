"""The Unix socket through which further SSH sessions join a running agent. Only its own user can enter the folder.

A process that another SSH session started connects, says a few words, and passes its standard input and output as file
descriptors. The agent keeps the Unix connection open, since its end tells that process to leave.
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

LONGEST_JOIN_PLACE = 70
"""Bytes of the folder above ours: a Unix socket's path holds 107 (104 on BSD), of which our own names take up to 36."""

LONGEST_JOINING = 256
"""Bytes of what a process says when it joins."""

JOIN_BACKLOG = 6
"""Connections that the system lets wait (listen(2)); each process has already spoken when it is admitted."""

SPEAKING_TIME = 1.0
"""Seconds for a process to say its words: a few lines of ours, which speak as soon as they have connected."""


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
    """`path` is where to connect, and `socket` is readable when somebody has. `folder` has room for other sockets."""

    def __init__(self, kind: str, place: str | None = None) -> None:
        """Make the folder in `place`, by default `root()`, and the socket in it.

        The folder is named after `kind` ("agent"). Those that killed processes of this kind left behind are removed.

        Raises:
            OSError: they cannot be made there.
        """
        prefix, place = f"tunneld-{kind}-", place or root()
        sweep(place, prefix)
        self.folder = f"{place}/{prefix}{os.getpid()}-{os.urandom(3).hex()}"
        self.path = f"{self.folder}/join"
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            os.mkdir(self.folder, 0o700)
            self.socket.bind(self.path)
            self.socket.listen(JOIN_BACKLOG)
        except BaseException:  # a signal may end the program here
            self.close()
            raise
        self.socket.setblocking(False)

    def admit(self) -> Joiner | None:
        """Let the next process join. None when none has connected, or when it did not bring two streams.

        Raises:
            OSError: no file descriptor is left for it; the socket stays readable, since the process goes on waiting.
        """
        try:
            keeper, _ = self.socket.accept()
        except BlockingIOError:
            return None
        keeper.settimeout(SPEAKING_TIME)
        try:
            words, fds, _, _ = socket.recv_fds(keeper, LONGEST_JOINING, 2)
        except OSError:
            words, fds = b"", []
        if len(fds) == 2 and all(map(_is_stream, fds)):
            return Joiner(words, (fds[0], fds[1]), keeper.detach())
        for fd in fds:
            os.close(fd)
        keeper.close()
        return None

    def close(self) -> None:
        """Close the socket, and remove the folder with all sockets in it."""
        self.socket.close()
        remove_sockets(self.folder)


def root(longest: int = LONGEST_JOIN_PLACE) -> str:
    """The folder for temporary files: $TMPDIR, if its path has at most `longest` bytes, else /tmp."""
    folder = os.environ.get("TMPDIR") or "/tmp"
    return folder if len(os.fsencode(folder)) <= longest else "/tmp"


def sweep(folder: str, prefix: str = "") -> None:
    """Remove from `folder` what killed processes of ours left there: sockets and folders of sockets.

    Their names are `prefix`, a process id, and `.` or `-` with more behind it.

    Other users may have put anything there. A folder that we may not list is left as it is.
    """
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder)
    for name in names:
        found = re.match(rf"{prefix}([0-9]{{1,9}})[.-]", name)
        if found and _is_abandoned(f"{folder}/{name}", int(found[1])):
            remove_sockets(f"{folder}/{name}")


def remove_sockets(path: str) -> None:
    """Remove a socket, or a folder of sockets, if there is one. A folder that holds other things stays: a person may
    have given it such a name."""
    with contextlib.suppress(OSError):
        for sock in _sockets(path):
            os.unlink(sock)
        if os.path.isdir(path):
            os.rmdir(path)


def _is_abandoned(path: str, pid: int) -> bool:
    """Whether it belongs to our user, and its process lives neither here nor in a container that shares this folder."""
    with contextlib.suppress(OSError):
        return is_own(os.lstat(path)) and not _lives(pid) and not any(map(_is_listened_to, _sockets(path)))
    return False


def _lives(pid: int) -> bool:
    """Whether there is a process of this number, whosever it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _sockets(path: str) -> list[str]:
    """The sockets in a folder; the path itself, if that is one."""
    paths = [f"{path}/{name}" for name in os.listdir(path)] if os.path.isdir(path) else [path]
    return [each for each in paths if stat.S_ISSOCK(os.lstat(each).st_mode)]


def _is_listened_to(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        return sock.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)


def _is_stream(fd: int) -> bool:
    """Whether it is a pipe or a socket: a selector takes no other files."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
