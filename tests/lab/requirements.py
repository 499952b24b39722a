"""What a machine needs to run the lab; checked once in each test run."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess

NETWORK = ("ip", "ss", "nft", "ethtool", "conntrack")
PROGRAMS = (*NETWORK, "sshd", "ssh", "ssh-keygen", "mosh", "mosh-server", "unshare", "setpriv", "setsid")


@functools.cache
def missing() -> tuple[str, ...]:
    """What this machine lacks, in words; empty where the lab can run."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    absent = tuple(f"{program} is not installed" for program in PROGRAMS if not shutil.which(program, path=path))
    if os.geteuid():
        return (*absent, "network namespaces need root")
    return absent or (*_namespaces(), *_packets())


def _namespaces() -> tuple[str, ...]:
    command = ["unshare", "--net", "--mount", "ip", "link", "set", "lo", "up"]
    probe = subprocess.run(command, capture_output=True, text=True)
    return (f"no network namespaces here: {probe.stderr.strip()}",) if probe.returncode else ()


def _packets() -> tuple[str, ...]:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError as error:
        return (f"no packet sockets here: {error}",)
    return ()
