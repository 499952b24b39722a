"""Network namespaces by name: enter them, delete them, and sweep away those of dead test runs.

A name is `lab-PID-START-NUMBER-HOST`: the id of the process that made the namespace, that process's start
time (since process ids are used again), a count within the process, and the host.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

NAME = re.compile(r"lab-(\d+)-(\d+)-\d+-\w+")
RUN_NETNS = Path("/run/netns")
ETC_NETNS = Path("/etc/netns")
CLONE_NEWNET = 0x40000000  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


def start_time(pid: int) -> str:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat); empty without such a process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def name_of(number: int, host: str) -> str:
    return f"lab-{os.getpid()}-{start_time(os.getpid())}-{number}-{host}"


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """This thread's new sockets belong to the namespace `name` until the block ends."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(RUN_NETNS / name, "rb") as there:
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def delete(name: str) -> None:
    """Kill what still runs in a namespace (a mosh-server outlives its parents), then remove the namespace."""
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    for pid in map(int, pids):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    shutil.rmtree(ETC_NETNS / name, ignore_errors=True)


def sweep() -> list[str]:
    """Delete the namespaces whose makers have died, and return their names."""
    found = {path.name for root in (RUN_NETNS, ETC_NETNS) if root.is_dir() for path in root.iterdir()}
    dead = sorted(name for name in found if (match := NAME.fullmatch(name)) and start_time(int(match[1])) != match[2])
    for name in dead:
        delete(name)
    return dead
