"""A machine with a real systemd, on the network of a host of the lab; it boots in seconds.

Its root is an overlay of the root of the machine that runs the tests.

with Booted(lab.pi) as machine:
    machine.run(["systemctl", "is-system-running"])
    machine.cut_power()                     # every process dies at once; files stay
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
    """Programs started here run inside the booted machine. `binds`: our folders, and where it sees them, read-only."""

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
        """The path from here to a file of the running machine. An absolute link there would lead into our own root."""
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
        """Boot. Unless `wait` is False, return only when systemd has finished all that starts at boot.

        Raises:
            AssertionError: systemd ended, or did not run within 30 s; the text is what the console printed.
        """
        # `ip netns exec` mounts a new /sys, which hides the cgroup tree; the script mounts a cgroup tree itself.
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
        """Kill every process at once; the kernel closes their sockets."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """`systemctl poweroff`: systemd stops the services in order."""
        self.run(["systemctl", "poweroff"], check=False)
        self._wait_off()

    def close(self) -> None:
        super().close()
        if self._unshare is not None:
            self._end(signal.SIGKILL)
        subprocess.run(["unshare", "--mount", "sh", SCRIPT, "off", self._cgroup], check=True)
        # The overlay makes a folder of mode 000 there, which only root can remove.
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
    """What this machine lacks for booting, in words; the lab's own requirements are checked elsewhere."""
    absent = tuple(f"{program} is not installed" for program in PROGRAMS if not shutil.which(program))
    return absent or _mounts()


def _mounts() -> tuple[str, ...]:
    probe = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", "mount -t cgroup2 none /mnt; grep -w overlay /proc/filesystems"],
        capture_output=True,
        text=True,
    )
    return (f"no cgroup2 or no overlay here: {probe.stderr.strip()}",) if probe.returncode else ()
