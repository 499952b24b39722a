"""known_hosts files, read anew at each dial; a host key is always checked against them."""

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

# asyncssh's seven lists: host keys, CA keys and revoked keys, then four of X.509, which stay empty.
Trusted = tuple[Sequence[object], ...]


class KnownHosts:
    """What asyncssh asks for trusted keys. A missing file holds none, as with ssh; it never means "trust all".

    asyncssh itself checks nothing for `UserKnownHostsFile none`, and fails on a missing file or one bad line.
    """

    def __init__(self, files: Sequence[Path], hop: Hop) -> None:
        self._files = tuple(file.expanduser() for file in files)
        self._hop = hop
        shown = self._there() or [file for file in self._files if not _is_hidden(file)][:1] or [self._files[0]]
        hop.known_hosts = ", ".join(map(str, shown))
        hop.is_copy = is_lent(shown[0])

    def __call__(self, host: str, addr: str, port: int | None) -> Trusted:
        hosts = asyncssh.SSHKnownHosts()
        denied: PermissionError | None = None
        for file in self._there():
            try:
                lines = readable(file).read_text(errors="replace").splitlines()
            except FileNotFoundError:
                continue
            except PermissionError as error:
                denied = error
                continue
            for line in lines:
                with contextlib.suppress(ValueError):  # ssh passes over what it cannot read, too
                    hosts.load(line)
        trusted = hosts.match(host, addr, port)
        self._hop.host_known = bool(trusted[0] or trusted[1])
        if denied is not None and not self._hop.host_known:
            raise denied
        return trusted

    def _there(self) -> list[Path]:
        return [file for file in self._files if os.path.exists(readable(file))]


def _is_hidden(file: Path) -> bool:
    """Whether it is in a home that a service cannot see (ProtectHome=): advice to write into it would be wrong."""
    try:
        os.stat(file)
    except OSError as error:
        return isinstance(error, PermissionError)
    return False
