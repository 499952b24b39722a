"""A guard: a tiny process that ends another one as soon as we are gone, however we went.

A shell that waits for the end of a pipe works everywhere. PR_SET_PDEATHSIG is Linux's alone, and a process that
detaches itself, as mosh-server does, loses it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

SHELL = "/bin/sh"

WATCH = 'read released || kill "$1"'


@contextlib.contextmanager
def guard(pid: int) -> Iterator[None]:
    """While this lasts, our own sudden end is followed by SIGTERM to that process."""
    there, here = os.pipe()
    with contextlib.suppress(OSError):  # no process is left for it: a session is worth more
        os.posix_spawn(
            SHELL,
            [SHELL, "-c", WATCH, "tunneld", str(pid)],
            {},  # nothing that tells a shell how to behave: with TMOUT, bash would not wait for longer than that
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
        with contextlib.suppress(OSError):  # somebody killed it
            os.write(here, b"released\n")
        os.close(here)
