"""known_hosts files. They are read anew at each dial, and a host key is always checked against them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from tunneld.profile.lent_files import is_lent, readable
from tunneld.ssh.connect.hop import Hop

USER_FILES = (Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2"))
GLOBAL_FILES = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))

# asyncssh's seven lists: host keys, CA keys and revoked keys, then four lists of X.509, which stay empty.
Trusted = tuple[Sequence[object], ...]


class KnownHosts:
    """Tells asyncssh which host keys are trusted. A missing file trusts none, as with ssh; it never means "trust all".

    asyncssh itself would check nothing for `UserKnownHostsFile none`, and would fail at a missing file or a bad line.
    """

    def __init__(self, files: Sequence[Path], hop: Hop) -> None:
        """
        Args:
            files: all count, in any order.
            hop: is told which files they are, and whether they have a key for it.
        """
        self._files = tuple(file.expanduser() for file in files)
        self._hop = hop
        shown = self._existing() or [file for file in self._files if not _is_hidden(file)][:1] or [self._files[0]]
        hop.known_hosts = ", ".join(map(str, shown))
        hop.is_copy = is_lent(shown[0])

    def __call__(self, host: str, addr: str, port: int | None) -> Trusted:
        """The keys for a host, as asyncssh asks for them.

        Raises:
            PermissionError: no file that can be read has a key for the host, and a file cannot be read.
        """
        hosts = asyncssh.SSHKnownHosts()
        denied: PermissionError | None = None
        for file in self._existing():
            try:
                lines = readable(file).read_text(errors="replace").splitlines()
            except FileNotFoundError:
                continue
            except PermissionError as error:
                denied = error
                continue
            for line in lines:
                with contextlib.suppress(ValueError):  # ssh passes over a line that it cannot read, too
                    hosts.load(line)
        trusted = hosts.match(host, addr, port)
        self._hop.host_known = bool(trusted[0] or trusted[1])
        if denied is not None and not self._hop.host_known:
            raise denied
        return trusted

    def _existing(self) -> list[Path]:
        return [file for file in self._files if os.path.exists(readable(file))]


def _is_hidden(file: Path) -> bool:
    """Whether a service cannot see the file's folder (ProtectHome=): advice to write there would be wrong."""
    try:
        os.stat(file)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
