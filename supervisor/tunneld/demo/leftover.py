"""What must not outlive the demo: its folder, and every process that has this folder as its home."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tunneld.errors import UnavailableError

# Seconds between SIGTERM and SIGKILL. mosh-server would go on for ten, since it tries to reach its client.
TERM_GRACE = 0.5
# Bytes of TMPDIR. The agent makes a Unix socket whose path is 52 bytes longer, and such a path has at most 107.
LONGEST_TMPDIR = 55


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this user can read. It is this process's HOME meanwhile. Afterwards it is removed.

    All programs of the demo have this folder as their HOME. So they neither read nor write anything of the user's. And
    a program that has left its parents, as mosh-server does, is still known to be ours: it is ended afterwards.

    Raises:
        UnavailableError: the folder cannot be made.
    """
    try:
        place = tempfile.gettempdir()
        place = place if len(os.fsencode(place)) <= LONGEST_TMPDIR else "/tmp"
        folder = Path(tempfile.mkdtemp(prefix="tunneld-demo-", dir=place))
    except OSError as error:
        raise UnavailableError(f"no room for a temporary folder: {error.strerror}; set TMPDIR to one") from None
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["HOME"]
        else:
            os.environ["HOME"] = before
        _end(folder, signal.SIGTERM)
        _end(folder, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(folder: Path) -> list[str]:
    """What is still there: the folder, or processes, in words."""
    return [*([str(folder)] if folder.exists() else []), *(f"process {pid}" for pid in inhabitants(folder))]


def inhabitants(folder: Path) -> list[int]:
    """The processes that have `folder` as HOME."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in numbers if pid != os.getpid() and _lives_in(folder, pid)]


def _lives_in(folder: Path, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it belongs to another user, or has ended
        return False
    return b"HOME=" + os.fsencode(folder) in environment.split(b"\0")


def _end(folder: Path, number: signal.Signals) -> None:
    """Signal all processes that live in the folder, and wait for their end, for a moment."""
    with contextlib.ExitStack() as held:
        signalled = []
        for pid in inhabitants(folder):
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                held.callback(os.close, process)
                if _lives_in(folder, pid):  # asked again: until we held it, the number could become another's
                    signal.pidfd_send_signal(process, number)
                    signalled.append(process)
        _wait_for(signalled)


def _wait_for(processes: list[int]) -> None:
    deadline = time.monotonic() + TERM_GRACE
    while processes and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(processes, [], [], left)
        processes = [each for each in processes if each not in ended]
