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

# Seconds for a process to end by SIGTERM. mosh-server would try to reach its client for ten.
TERM_GRACE = 0.5
# Bytes of the place for the folder. The agent makes a Unix socket 52 bytes below, and a socket's path has at most 107.
LONGEST_TMP = 55


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for this user alone, and this process's home; afterwards it is gone, and who lived in it as well.

    Programs of the demo are started with it as HOME, so that they neither read nor write anything of the user's, and
    so that one that left its parents (mosh-server does) is still known to be ours.

    Raises:
        UnavailableError: there is no room for it.
    """
    try:
        place = tempfile.gettempdir()
        place = place if len(os.fsencode(place)) <= LONGEST_TMP else "/tmp"
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
    """What is still there, in words."""
    return [*([str(folder)] if folder.exists() else []), *(f"process {pid}" for pid in inhabitants(folder))]


def inhabitants(folder: Path) -> list[int]:
    """The processes that have `folder` as HOME."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in numbers if pid != os.getpid() and _lives_in(folder, pid)]


def _lives_in(folder: Path, pid: int) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # another user's, or gone
        return False
    return b"HOME=" + os.fsencode(folder) in environment.split(b"\0")


def _end(folder: Path, number: signal.Signals) -> None:
    """Signal them, and wait for a moment."""
    with contextlib.ExitStack() as held:
        signalled = []
        for pid in inhabitants(folder):
            with contextlib.suppress(ProcessLookupError):
                process = os.pidfd_open(pid)
                held.callback(os.close, process)
                if _lives_in(folder, pid):  # asked again: before it was held, the number could become another's
                    signal.pidfd_send_signal(process, number)
                    signalled.append(process)
        _wait_for(signalled)


def _wait_for(processes: list[int]) -> None:
    deadline = time.monotonic() + TERM_GRACE
    while processes and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(processes, [], [], left)
        processes = [each for each in processes if each not in ended]
