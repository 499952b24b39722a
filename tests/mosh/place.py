"""DEST, which is a real sshd on loopback whose sessions have a home and a PATH of their own, and a person near it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.lab.client import FAR_END, READY, Person, person
from tests.lab.machine import Machine
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal
from tests.sshd import descendants, free_port
from tunneld.mosh import paths_socket

TUNNELD = (sys.executable, "-m", "tunneld")
HURRIED = (sys.executable, str(Path(__file__).with_name("hurried.py")))
NAME = "home"
NEEDS_MOSH = [
    pytest.mark.skipif(not shutil.which("mosh-server"), reason="mosh is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="sshd needs root to set an environment for its sessions"),
]
PYTHON = Path(sys.executable).resolve()  # the one on PATH may be a script that needs other programs


@dataclass(frozen=True, slots=True)
class Place:
    """`dest_home` is the home of sessions on DEST, and its `bin` is their PATH where a test made it; `runtime` is the
    person's folder for sockets."""

    machine: Machine
    sshd: Sshd
    guest: Person
    dest_home: Path
    runtime: Path

    def command(self, *options: str, program: Sequence[str] = TUNNELD) -> list[str]:
        return [*program, "mosh", "-F", str(self.guest.config), *options]

    def start(self, *options: str, env: Mapping[str, str] | None = None, dest: str = NAME) -> Terminal:
        """`tunneld mosh OPTIONS DEST`, as typed."""
        return self.run([*self.command(*options), dest], env)

    def run(self, argv: list[str], env: Mapping[str, str] | None = None) -> Terminal:
        return Terminal(self.machine, argv, env={**self._runtime, **(env or {})})

    @contextlib.contextmanager
    def session(self, *options: str) -> Iterator[Terminal]:
        """A running session with short waits, whose program on DEST echoes what is typed."""
        with self.run([*self.command(*options, program=HURRIED), NAME, "--", *FAR_END]) as terminal:
            terminal.wait_for(READY)
            yield terminal

    def sockets(self) -> list[str]:
        """The paths sockets of sessions that run."""
        folder = self.runtime / paths_socket.FOLDER_NAME
        return sorted(each.name for each in folder.glob("*.sock"))

    def paths(self, *options: str) -> str:
        """What `tunneld mosh --paths` says."""
        return self.machine.run([*TUNNELD, "mosh", "--paths", *options], env=self._runtime).stdout

    def pair(self, terminal: Terminal) -> dict[str, Any]:
        """What the session on this terminal says of its pair; nothing before it runs."""
        pair: dict[str, Any] = self._said(terminal).get("pair", {})
        return pair

    def age(self, terminal: Terminal) -> float:
        """Seconds since the session on this terminal began; 0 before it runs."""
        return float(self._said(terminal).get("since", 0))

    def streams(self, terminal: Terminal) -> int:
        """How many of its SSH connections work."""
        return sum(stream["greeted"] for stream in self.pair(terminal).get("streams", []))

    def ssh_attempts(self, terminal: Terminal) -> dict[str, Any]:
        """What the session on this terminal says of failed attempts at another connection; empty where none failed."""
        return self._said(terminal).get("ssh") or {}

    def servers(self) -> list[int]:
        """The processes of mosh-server on DEST."""
        return self._processes(b"mosh-server\0")

    def agents(self) -> list[int]:
        """The processes of our agent on DEST."""
        return self._processes(b"python3\0-ISc")

    def _processes(self, begin: bytes) -> list[int]:
        """What runs on DEST with a command line that begins so: only sessions there have its home."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                is_ours = folder.name.isdigit() and (folder / "cmdline").read_bytes().startswith(begin)
                if is_ours and f"HOME={self.dest_home}\0".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def _said(self, terminal: Terminal) -> dict[str, Any]:
        found = [json.loads(line) for line in self.paths("--json").splitlines()] if self.sockets() else []
        return next((each for each in found if each["pid"] == terminal.process.pid), {})

    @property
    def _runtime(self) -> Mapping[str, str]:
        return {"XDG_RUNTIME_DIR": str(self.runtime)}


@contextlib.contextmanager
def place(folder: Path, options: Mapping[str, str] | None = None, *, programs: tuple[str, ...] = ()) -> Iterator[Place]:
    """`programs` are all that DEST has beside a shell; it has everything of this machine if none are named."""
    machine = Machine("here", folder / "here")
    dest_home = folder / "dest"
    (dest_home / "bin").mkdir(parents=True)
    for program in ("sh", "bash", "cat", *programs) if programs else ():
        found = PYTHON if program == "python3" else shutil.which(program)
        (dest_home / "bin" / program).symlink_to(found or program)
    path = f" PATH={dest_home}/bin" if programs else ""
    guest = person(machine, "guest")
    # With SHLVL=2, Debian's bash does not read the start-up files of whoever runs the tests.
    settings = {"SetEnv": f"SHLVL=2 HOME={dest_home}{path}", **(options or {})}
    with (
        TemporaryDirectory(dir="/tmp") as runtime,  # pytest's own folders may be too long for a socket
        Sshd(machine, (guest.key.public,), settings, address="127.0.0.1", port=free_port()) as sshd,
    ):
        guest.trust(sshd.known_hosts("127.0.0.1"))
        host = f"Host {NAME}\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        guest.config.write_text(host + guest.config.read_text())
        yield Place(machine, sshd, guest, dest_home, Path(runtime))


def exit_status(terminal: Terminal, *, timeout: float = 15) -> int:
    """The exit status of the program on this terminal, waited for."""
    return terminal.process.wait(timeout)


def is_alive(pid: int) -> bool:
    """Whether this process has not ended; one that nobody has waited for yet (a zombie) has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int, name: str) -> list[int]:
    """The processes of this name below another one."""
    found = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{each}/comm").read_text().strip() == name:
                found.append(each)
    return found
