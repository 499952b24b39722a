"""The commands that people type, `ssh` and the stock `mosh` script, with a configuration that the test writes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.machine import Machine
from tests.lab.sshd import Key, make_key
from tests.lab.terminal import Terminal

READY: Final = "READY"
FAR_END: Final = ("sh", "-c", f"echo {READY}; exec cat")  # the terminal over there echoes what is typed
PORTS: Final = "60001:60010"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone on `machine` with a key, who trusts the servers in `known_hosts` and no other."""

    machine: Machine
    key: Key
    folder: Path

    def trust(self, lines: str) -> None:
        """Add known_hosts lines."""
        with self.known_hosts.open("a") as file:
            file.write(lines)

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def ssh(self, *arguments: str) -> list[str]:
        return ["ssh", "-F", str(self.config), *arguments]

    def ssh_terminal(self, *arguments: str) -> Terminal:
        """An `ssh -tt` session to a program that echoes; returned when that program is ready."""
        terminal = Terminal(self.machine, self.ssh("-tt", *arguments, "--", shlex.join(FAR_END)))
        return ready(terminal)

    def mosh(self, target: str, *ssh: str, options: tuple[str, ...] = (), ports: str = PORTS) -> list[str]:
        """The stock script's command line: `mosh -p PORTS OPTIONS --ssh="ssh SSH" TARGET -- FAR_END`."""
        return ["mosh", "-p", ports, *options, f"--ssh={shlex.join(self.ssh(*ssh))}", target, "--", *FAR_END]

    def mosh_terminal(
        self, target: str, *ssh: str, options: tuple[str, ...] = (), ports: str = PORTS, timeout: float = 30
    ) -> Terminal:
        """A stock mosh session to a program that echoes; returned when that program is ready."""
        return ready(Terminal(self.machine, self.mosh(target, *ssh, options=options, ports=ports)), timeout=timeout)


def person(machine: Machine, name: str = "person") -> Person:
    """Make a person with a new key and an empty known_hosts."""
    folder = machine.directory / name
    made = Person(machine, make_key(folder / "id_ed25519"), folder)
    made.known_hosts.touch()
    made.config.write_text(
        "Host *\n"
        f"  IdentityFile {made.key.path}\n"
        "  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {made.known_hosts}\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  ConnectTimeout 10\n"
        "  User root\n"
    )
    return made


def ready(terminal: Terminal, *, timeout: float = 30) -> Terminal:
    """Wait until the far end has printed READY, and return the terminal; close it if that fails."""
    try:
        # Only the far end can have printed this word: an echo of the typed command would come before the screen is
        # cleared.
        terminal.wait_for(READY, timeout=timeout)
    except BaseException:
        terminal.close()
        raise
    return terminal
