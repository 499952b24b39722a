"""Ends another process as soon as we are gone, however we went.

A tiny process does it: a shell that waits for the end of a pipe, which works everywhere. PR_SET_PDEATHSIG (prctl(2))
exists on Linux alone, and a process that detaches itself, as mosh-server does, loses it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

GUARDING_SHELL = "/bin/sh"

GUARDING_SCRIPT = 'read released || kill "$1"'
"""`read` fails when nobody holds the other end of the pipe any more, unless a line came before."""


@contextlib.contextmanager
def guard(pid: int) -> Iterator[None]:
    """Have the process of this number sent SIGTERM if we end within this context, however suddenly.

    Afterwards it is left alone. Where the system has no room for the process that watches, nothing is watched.
    """
    there, here = os.pipe()
    with contextlib.suppress(OSError):  # the session is worth more than its guard
        os.posix_spawn(
            GUARDING_SHELL,
            [GUARDING_SHELL, "-c", GUARDING_SCRIPT, "tunneld", str(pid)],
            {},  # with TMOUT in its environment, bash would wait for no longer than that
            file_actions=[
                (os.POSIX_SPAWN_DUP2, there, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    os.close(there)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody killed the shell
            os.write(here, b"released\n")
        os.close(here)
