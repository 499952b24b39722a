"""A real OpenSSH server on a machine of the lab or on loopback; the test adds to its configuration."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.machine import Machine, end
from tests.until import wait_until

SEPARATION = Path("/run/sshd")  # privilege separation: sshd as root will not start without it
SYSTEM = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


@dataclass(frozen=True, slots=True)
class Key:
    """An ed25519 key pair in files; `public` is the line for authorized_keys."""

    path: Path
    public: str


def make_key(path: Path) -> Key:
    """Make a key pair without a passphrase; the private file is readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", path], check=True)
    return Key(path, path.with_name(path.name + ".pub").read_text().strip())


@dataclass(slots=True)
class Sshd:
    """`options` are sshd_config(5) keywords; `authorized` are whole authorized_keys lines, options included."""

    machine: Machine
    authorized: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    address: str = "0.0.0.0"
    port: int = 22
    name: str = "sshd"  # its folder in the machine's folder
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def directory(self) -> Path:
        return self.machine.directory / self.name

    @property
    def host_key(self) -> Key:
        path = self.directory / "host_key"
        return Key(path, path.with_name("host_key.pub").read_text().strip()) if path.exists() else make_key(path)

    def known_hosts(self, *names: str) -> str:
        """known_hosts lines for the names under which clients reach this server, on its port."""
        kind, blob = self.host_key.public.split()[:2]
        return "".join(
            f"{name if self.port == 22 or name.startswith('[') else f'[{name}]:{self.port}'} {kind} {blob}\n"
            for name in names
        )

    @property
    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server and return once it listens.

        Raises:
            AssertionError: the server ended instead; the text is its log.
        """
        self._write()
        with contextlib.suppress(PermissionError):
            SEPARATION.mkdir(exist_ok=True)
        program = shutil.which("sshd", path=SYSTEM["PATH"]) or "/usr/sbin/sshd"
        heard = self.log.count("Server listening on")
        with (self.directory / "log").open("ab") as log:
            self.process = self.machine.popen(
                [program, "-D", "-e", "-f", self.directory / "config"], stderr=log, env=SYSTEM
            )
        process = self.process
        wait_until(
            lambda: self.log.count("Server listening on") > heard or process.poll() is not None, what="sshd listens"
        )
        if process.poll() is not None:
            raise AssertionError(f"sshd on {self.machine.name} ended: {self.log}")

    def stop(self, *, connections: bool = False) -> None:
        """End the server. With `connections`, its sessions are killed too, as in a reboot."""
        assert self.process is not None
        children = descendants(self.process.pid) if connections else []
        end(self.process)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def restart(self) -> None:
        """Do what a reboot of the relay does: kill every session, then start a new server."""
        self.stop(connections=True)
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(connections=True)

    def _write(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "authorized_keys").write_text("".join(f"{line}\n" for line in self.authorized))
        settings = {
            "Port": str(self.port),
            "ListenAddress": self.address,
            "HostKey": str(self.host_key.path),
            "PidFile": str(self.directory / "pid"),
            "AuthorizedKeysFile": str(self.directory / "authorized_keys"),
            "StrictModes": "no",  # the folder belongs to the user who runs the tests
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UseDNS": "no",
            "PrintMotd": "no",
            "LogLevel": "VERBOSE",
            # All relays of all labs run on this machine as this user. With one state folder, tunnels of other labs
            # would end each other's sessions.
            "SetEnv": f"XDG_STATE_HOME={self.directory}/state",
        }
        # sshd_config(5) takes the first value of a keyword, so each keyword stands once: the test's value, if any.
        lines = [f"{keyword} {value}\n" for keyword, value in (settings | dict(self.options)).items()]
        (self.directory / "config").write_text("".join(lines))


def descendants(pid: int) -> list[int]:
    """The process ids of all descendants of `pid`, from /proc: each child is followed by its own descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]
