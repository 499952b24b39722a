"""The route to DEST through a jump host: who that is, and a folder for the sockets at which its connection is shared.

The first ssh waits until this is known. What our agent on the jump host needs besides is imported later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from tunneld.mosh import jump_host
from tunneld.mosh.jump_host import JumpHost
from tunneld.shipped.join_socket import JoinSocket, root

LONGEST_SOCKET_ROOT = 46
"""Bytes that the path of the folder for temporary files may have.

A Unix socket's path may have 103 bytes on BSD; our own names take 40 of them, and ssh adds 17 while it makes its
socket."""

SPECIAL = set(" \t\"'\\")
"""Characters in a path that ssh would not take as they are."""


class JumpRoute:
    """Finds the jump host in a thread; every question waits until the thread has ended."""

    def __init__(
        self,
        options: Sequence[str],
        settings: Mapping[str, str],
        query: Callable[[list[str]], dict[str, str]] = jump_host.configuration,
    ) -> None:
        """
        Args:
            options: the person's own options for ssh.
            settings: what `ssh -G` says of DEST with them.
            query: asks `ssh -G` about other words.
        """
        self._options = tuple(options)
        self._jump_host: JumpHost | None = None
        # Nobody joins at it. It makes the folder, and shows to later sessions, which tidy up, that its owner lives.
        self._folder: JoinSocket | None = None
        self._finding = threading.Thread(target=self._find, args=(settings, query), name="jump-route", daemon=True)
        self._finding.start()

    @property
    def jump_host(self) -> JumpHost | None:
        """The jump host, or None where ssh goes through none."""
        self._finding.join()
        return self._jump_host

    @property
    def first_settings(self) -> Mapping[str, str]:
        """What `ssh -G` says of the first jump host; empty where its connection is not of our making."""
        return self.jump_host.settings[0] if self.jump_host and not self.jump_host.theirs else {}

    def options(self, name: str, *, unattended: bool = False, first: Sequence[str] = ()) -> tuple[str, ...]:
        """The options of the ssh that is to carry the stream `name`; see `jump_host.through` for the others."""
        if self.jump_host is None:
            return self._options
        socket = self.socket(name)
        return tuple(jump_host.through(self.jump_host, self._options, socket, unattended=unattended, first=first))

    def socket(self, name: str) -> str:
        """The path of the socket at which the stream `name` shares its connection to the first jump host."""
        self._finding.join()
        return f"{self._folder.folder}/{name}" if self._folder else ""

    def is_shared(self, name: str) -> bool:
        """Whether the stream `name` shares its connection to the first jump host, as far as the file system shows."""
        return self.jump_host is not None and (self.jump_host.theirs or os.path.exists(self.socket(name)))

    def close(self) -> None:
        """Remove the folder, and the sockets in it that an ssh left behind."""
        self._finding.join()
        if self._folder:
            self._folder.close()

    def _find(self, settings: Mapping[str, str], query: Callable[[list[str]], dict[str, str]]) -> None:
        found = jump_host.find_jump_host(self._options, settings, query)
        with contextlib.suppress(OSError):  # there is no place for a folder: ssh then makes the hop itself
            self._folder = JoinSocket("jump", _root()) if found and not found.theirs else None
            self._jump_host = found


def _root() -> str:
    """The folder for temporary files, or /tmp where its path does not suit ssh."""
    folder = root(LONGEST_SOCKET_ROOT)
    return "/tmp" if set(folder) & SPECIAL else folder
