"""known_hosts files, read anew at each dial; a host key is always checked against them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from tunneld.ssh.hop import Hop

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
        hop.known_hosts = ", ".join(str(file) for file in self._files if file.exists()) or str(self._files[0])

    def __call__(self, host: str, addr: str, port: int | None) -> Trusted:
        hosts = asyncssh.SSHKnownHosts()
        for file in self._files:
            with contextlib.suppress(FileNotFoundError):
                for line in file.read_text(errors="replace").splitlines():
                    with contextlib.suppress(ValueError):  # ssh passes over what it cannot read, too
                        hosts.load(line)
        trusted = hosts.match(host, addr, port)
        self._hop.host_known = bool(trusted[0] or trusted[1])
        return trusted
