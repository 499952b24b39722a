"""A machine with a real systemd, booted in seconds over an overlay of this one's root, on the network of a lab's host.

with Booted(lab.pi) as machine:
    machine.run(["systemctl", "is-system-running"])
    machine.cut_power()                     # every process is gone at once; what was written stays
    machine.boot()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.lab import namespace
from tests.lab.machine import Machine
from tests.lab.net import NAMES, Host
from tests.lab.sshd import descendants
from tests.until import wait_until

SCRIPT: Final = Path(__file__).with_name("boot.sh")
PROGRAMS: Final = ("/lib/systemd/systemd", "unshare", "nsenter", "dbus-daemon", "loginctl")
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Booted(Machine):
    """What a test starts here runs inside; `binds` are folders of ours that it sees, read-only, where it wants them."""

    def __init__(self, host: Host, *, binds: Mapping[Path, str] | None = None) -> None:
        super().__init__("booted", host.directory / "booted")
        self.host = host
        self._cgroup = f"{host.namespace}-booted"
        self._binds = [f"{source}:{target}" for source, target in (binds or {}).items()]
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        try:
            self.boot()
        except BaseException:
            self.close()
            raise
        return self

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        clean = ["env", "-i", f"PATH={SYSTEM_PATH}", "HOME=/root", "LANG=C.UTF-8", "TERM=xterm", "COLUMNS=200"]
        return ["nsenter", "-t", str(self._init), "-a", *clean, *super().command(argv)]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with namespace.entered(self.host.namespace):
            yield

    def path(self, inside: str) -> Path:
        """A file of the running machine, as we reach it from here. Its absolute links would lead into our own root."""
        return Path(f"/proc/{self._init}/root{inside}")

    def write(self, inside: str, text: str, *, mode: int = 0o644) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def read(self, inside: str) -> str:
        return self.path(inside).read_text()

    def shell(self, script: str, *, timeout: float = 30) -> str:
        """Run a script here as root and return what it prints.

        Raises:
            AssertionError: a line of it failed.
        """
        return self.run(["sh", "-ec", script], timeout=timeout).stdout

    def boot(self, *, wait: bool = True) -> None:
        """Start it; unless `wait` is False, return once everything that boots has settled.

        Raises:
            AssertionError: it ended, or did not come up within 30 s; the text is what it printed.
        """
        # A namespace's fresh /sys hides the cgroup tree; the script mounts its own.
        with (self.directory / "console").open("ab") as console:
            self._unshare = self.host.popen(
                ["sh", SCRIPT, "on", self.directory, self._cgroup, *self._binds], stdout=console, stderr=console
            )
        try:
            wait_until(self._is_reachable, what="systemd runs", timeout=30)
        except TimeoutError as late:
            raise AssertionError(f"{late}: {self._console()}") from None
        self._write_hosts()
        if wait:
            self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=60)

    def cut_power(self) -> None:
        """Every process is gone at once, without a word; sockets of theirs are closed by the kernel."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """`systemctl poweroff`: services are stopped in order."""
        self.run(["systemctl", "poweroff"], check=False)
        self._wait_off()

    def close(self) -> None:
        super().close()
        if self._unshare is not None:
            self._end(signal.SIGKILL)
        subprocess.run(["unshare", "--mount", "sh", SCRIPT, "off", self._cgroup], check=True)
        # The overlay's own folder belongs to nobody, not even to its owner.
        shutil.rmtree(self.directory / "work", ignore_errors=True)

    def _is_reachable(self) -> bool:
        assert self._unshare is not None
        if self._unshare.poll() is not None:
            raise AssertionError(f"systemd ended: {self._console()}")
        inits = [pid for pid in descendants(self._unshare.pid) if _is_systemd(pid)]
        self._init = inits[0] if inits else 0
        return bool(inits) and self.path("/run/systemd/private").is_socket()

    def _write_hosts(self) -> None:
        known = "".join(f"{address} {name}\n" for name, address in NAMES.items())
        self.write("/etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{known}")

    def _end(self, number: signal.Signals) -> None:
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, number)
        self._wait_off()

    def _wait_off(self) -> None:
        assert self._unshare is not None
        try:
            self._unshare.wait(30)
        except subprocess.TimeoutExpired:
            self._unshare.kill()
            self._unshare.wait()
            raise
        finally:
            self._init = 0

    def _console(self) -> str:
        return (self.directory / "console").read_text(errors="replace")[-3000:]


def _is_systemd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name == "systemd"
    return False


def missing() -> tuple[str, ...]:
    """What this machine lacks for it, in words, beyond what the lab needs anyway."""
    absent = tuple(f"{program} is not installed" for program in PROGRAMS if not shutil.which(program))
    return absent or _mounts()


def _mounts() -> tuple[str, ...]:
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "mount -t cgroup2 none /mnt; grep -w overlay /proc/filesystems"],
        capture_output=True,
        text=True,
    )
    return (f"no cgroup2 or no overlay here: {probe.stderr.strip()}",) if probe.returncode else ()
