"""Starting mosh-server: the first thing that a far agent does, while most of it has not arrived yet.

`serve` is what the client wants, all keys optional: {"server": a shell's words, "command": what runs in the terminal
(None: a login shell), "colors": 256, "locale": {"LANG": ...}, "ports": "60001:60010"}. Few imports: a person waits.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

LOOPBACK = {4: "127.0.0.1", 6: "::1"}

SHELL = "/bin/sh"

ELSEWHERE = (
    *("/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/usr/pkg/bin"),
    *("~/.nix-profile/bin", "~/.local/bin"),
)
"""Where package managers put mosh-server; what sshd starts without a login shell seldom looks there (Homebrew's)."""

COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts into LC_CTYPE where it finds the C locale (PEP 538); mosh-server shall see what sshd gave us."""

IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores, which must not be so in somebody's shell."""


def detach() -> int:
    """Go on in a session of our own. What sshd started stays behind as the smallest program that waits for an end: that
    of the file descriptor that this gives, which whoever holds the stream closes with it."""
    there, here = os.pipe()
    if os.fork():
        os.dup2(there, 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.execvp("cat", ["cat"])
    os.close(there)
    os.setsid()
    return here


def spawn(serve: Mapping[str, Any], family: int, locale: Mapping[str, str]) -> tuple[int, int]:
    """Start it on the loopback of this family; the process, and a pipe with what it says.

    mosh-server itself leaves our process tree as soon as it has said its key.
    """
    arguments = ["new", "-i", LOOPBACK[family], "-c", str(serve.get("colors", 256))]
    for name, value in locale.items():
        arguments += ["-l", f"{name}={value}"]
    if serve.get("ports"):
        arguments += ["-p", serve["ports"]]
    if serve.get("command"):
        arguments += ["--", *serve["command"]]
    ours, theirs = os.pipe()
    pid = os.posix_spawn(
        SHELL,
        [SHELL, "-c", f'{found(serve.get("server") or "mosh-server")} "$@"', SHELL, *arguments],
        environment(),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, theirs, 1),
            (os.POSIX_SPAWN_DUP2, theirs, 2),
        ],
        setsigdef=IGNORED,
    )
    os.close(theirs)
    return pid, ours


def found(server: str) -> str:
    """A bare word that PATH does not know is looked for where package managers put it."""
    if server.strip("abcdefghijklmnopqrstuvwxyz0123456789-.") or any(
        os.access(f"{folder}/{server}", os.X_OK) for folder in os.get_exec_path()
    ):
        return server
    places = [os.path.expanduser(f"{folder}/{server}") for folder in ELSEWHERE]
    return next(("'" + place.replace("'", "'\\''") + "'" for place in places if os.access(place, os.X_OK)), server)


def environment() -> dict[str, str]:
    """Ours, as it was before Python looked at it."""
    ours = dict(os.environ)
    if ours.get("LC_CTYPE") in COERCED:
        try:
            with open("/proc/self/environ", "rb") as file:
                was_there = any(line.startswith(b"LC_CTYPE=") for line in file.read().split(b"\0"))
        except OSError:
            was_there = False  # the client's own locale is tried anyway
        if not was_there:
            del ours["LC_CTYPE"]
    return ours
