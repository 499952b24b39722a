"""A far machine on loopback: a real sshd, whose sessions have a home and a PATH of their own, and a person nearby."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.lab.client import FAR_END, READY, Person, person
from tests.lab.machine import Machine
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal
from tests.sshd import descendants, free_port
from tunneld.mosh import paths_socket

TUNNELD = (sys.executable, "-m", "tunneld")
NAME = "home"
PYTHON = Path(sys.executable).resolve()  # the one on PATH may be a script that needs other programs


@dataclass(frozen=True, slots=True)
class Place:
    """`far` holds what the far machine's sessions see: `home`, and `bin` as PATH where a test has made it. `runtime`
    is the person's folder for sockets."""

    machine: Machine
    sshd: Sshd
    guest: Person
    far: Path
    runtime: Path

    def command(self, *options: str) -> list[str]:
        return [*TUNNELD, "mosh", "-F", str(self.guest.config), *options]

    def start(self, *options: str, env: Mapping[str, str] | None = None, dest: str = NAME) -> Terminal:
        """`tunneld mosh OPTIONS DEST`, as typed."""
        return self.run([*self.command(*options), dest], env)

    def run(self, argv: list[str], env: Mapping[str, str] | None = None) -> Terminal:
        return Terminal(self.machine, argv, env={**self._runtime, **(env or {})})

    @contextlib.contextmanager
    def session(self, *options: str) -> Iterator[Terminal]:
        """A running session, whose far end echoes what is typed."""
        with self.run([*self.command(*options), NAME, "--", *FAR_END]) as terminal:
            terminal.wait_for(READY)
            yield terminal

    def windows(self) -> list[str]:
        """The windows of sessions that run."""
        folder = self.runtime / paths_socket.FOLDER_NAME
        return sorted(each.name for each in folder.glob("*.sock"))

    def paths(self, *options: str) -> str:
        """What `tunneld mosh --paths` says."""
        return self.machine.run([*TUNNELD, "mosh", "--paths", *options], env=self._runtime).stdout

    def pair(self, terminal: Terminal) -> dict[str, Any]:
        """What the session on this terminal says of its pair; nothing before it runs."""
        found = [json.loads(line) for line in self.paths("--json").splitlines()] if self.windows() else []
        return next((each["pair"] for each in found if each["pid"] == terminal.process.pid), {})

    def streams(self, terminal: Terminal) -> int:
        """How many of its SSH connections carry."""
        return sum(stream["greeted"] for stream in self.pair(terminal).get("streams", []))

    @property
    def _runtime(self) -> Mapping[str, str]:
        return {"XDG_RUNTIME_DIR": str(self.runtime)}


@contextlib.contextmanager
def place(folder: Path, options: Mapping[str, str] | None = None, *, programs: tuple[str, ...] = ()) -> Iterator[Place]:
    """`programs` are all that the far machine has, beside a shell; everything of this one, if none are named."""
    machine = Machine("here", folder / "here")
    far = folder / "far"
    (far / "bin").mkdir(parents=True)
    for program in ("sh", "bash", "cat", *programs) if programs else ():
        found = PYTHON if program == "python3" else shutil.which(program)
        (far / "bin" / program).symlink_to(found or program)
    path = f" PATH={far}/bin" if programs else ""
    guest = person(machine, "guest")
    # With SHLVL=2, Debian's bash does not read the start-up files of whoever runs the tests.
    settings = {"SetEnv": f"SHLVL=2 HOME={far}{path}", **(options or {})}
    with (
        TemporaryDirectory(dir="/tmp") as runtime,  # pytest's own folders may be too long for a socket
        Sshd(machine, (guest.key.public,), settings, address="127.0.0.1", port=free_port()) as sshd,
    ):
        guest.trust(sshd.known_hosts("127.0.0.1"))
        host = f"Host {NAME}\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        guest.config.write_text(host + guest.config.read_text())
        yield Place(machine, sshd, guest, far, Path(runtime))


def children(pid: int, name: str) -> list[int]:
    """The processes of this name below another one."""
    found = []
    for each in descendants(pid):
        with contextlib.suppress(OSError):  # it has just ended
            if Path(f"/proc/{each}/comm").read_text().strip() == name:
                found.append(each)
    return found
