"""A booted pi with tunneld installed, a relay for its tunnels, and two users who type commands: root and vera."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import installed
from tests.lab.booted import Booted
from tests.lab.net import Lab
from tests.lab.product import bound_ports
from tests.lab.scene import Scene, scene
from tests.until import wait_until
from tunneld.core.supervise.lifecycle import State
from tunneld.status.snapshot import TunnelStatus, from_json

SYSTEM_PROFILES: Final = "/etc/tunneld/profiles"
USER_PROFILES: Final = "/home/vera/.config/tunneld/profiles"
CHECKING_RELAY: Final = {
    "ClientAliveInterval": "1",
    "ClientAliveCountMax": "2",
}  # sshd_config of a relay that notices a dead host soon
RELAY: Final = '[relay]\nhost = "relay"\nuser = "root"\n'


def profile(*ports: int, rest: str = "", relay: str = "") -> str:
    """A profile with a forward to pi's sshd at each of these ports of the relay."""
    tables = "".join(f'[[forward]]\nlisten = "0.0.0.0:{port}"\nto = "127.0.0.1:22"\n' for port in ports)
    return RELAY + relay + tables + rest


@dataclass(frozen=True, slots=True)
class Home:
    """The booted pi, and what a test asks of it and of the relay."""

    scene: Scene
    machine: Booted

    @property
    def lab(self) -> Lab:
        return self.scene.lab

    def write_profile(self, text: str, *, name: str = "pi-home", folder: str = SYSTEM_PROFILES) -> None:
        self.machine.write(f"{folder}/{name}.toml", text)

    def type(self, line: str, *, code: int = 0, user: str = "root", timeout: float = 60) -> str:
        """Run a command line as this user, after a new login, and return what it prints.

        Raises:
            AssertionError: the command did not end with `code`; with all that it printed.
        """
        done = self.try_typing(line, user=user, timeout=timeout)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"`{line}` ended {done.returncode}: {said}"
        return said

    def try_typing(self, line: str, *, user: str = "root", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        words = ["sh", "-c", line] if user == "root" else ["su", "-", user, "-c", line]
        return self.machine.run(words, check=False, timeout=timeout)

    def enable(self, text: str | None = None, *, name: str = "pi-home") -> str:
        """Write the profile, if given, and `tunneld enable` it."""
        if text is not None:
            self.write_profile(text, name=name)
        return self.type(f"tunneld enable {name}")

    def disable(self, name: str = "pi-home") -> str:
        return self.type(f"tunneld disable {name}")

    def status(self, name: str = "pi-home", *, user: str = "root") -> TunnelStatus | None:
        """The status of a tunnel; None when no daemon answers."""
        done = self.try_typing(f"tunneld status --json {name}", user=user)
        return from_json(done.stdout) if done.stdout.strip() else None

    def wait_for(
        self, holds: Callable[[TunnelStatus], object], *, what: str, name: str = "pi-home", timeout: float = 30
    ) -> TunnelStatus:
        """The first status for which `holds` is true.

        Raises:
            AssertionError: none within `timeout` seconds; with the service's journal.
        """
        seen: list[TunnelStatus | None] = []

        def asked() -> bool:
            seen[:] = [self.status(name)]
            return seen[0] is not None and bool(holds(seen[0]))

        try:
            wait_until(asked, what=what, timeout=timeout, every=0.1)
        except TimeoutError as late:
            raise AssertionError(f"{late}; status: {seen}\n{self.journal(name)}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_up(self, name: str = "pi-home", *, timeout: float = 30) -> TunnelStatus:
        return self.wait_for(
            lambda status: status.state is State.UP, what="the tunnel is up", name=name, timeout=timeout
        )

    def property(self, *names: str, unit: str = "tunneld@pi-home") -> str:
        """The unit's properties as systemd shows them, a line each."""
        return self.machine.shell(f"systemctl show -P {','.join(names)} {unit}").strip()

    def shown(self, unit: str = "tunneld@pi-home") -> str:
        """What `systemctl status` prints."""
        return self.machine.run(["systemctl", "status", "--no-pager", unit], check=False).stdout

    def journal(self, name: str = "pi-home") -> str:
        return self.machine.run(["journalctl", "--no-pager", "-b", "-o", "cat", "-u", f"tunneld@{name}"]).stdout[-6000:]

    def holds(self, port: int) -> bool:
        """Whether the relay listens on this port."""
        return port in bound_ports(self.lab.relay)

    def connect(self, port: int = 2222) -> socket.socket:
        """A connection from the relay through the tunnel, after the greeting of pi's sshd."""
        with self.lab.relay.entered():
            made = socket.socket()
        made.settimeout(5)
        try:
            made.connect(("127.0.0.1", port))
            assert made.recv(100).startswith(b"SSH-2.0-")
        except BaseException:
            made.close()
            raise
        return made

    def passes(self, port: int = 2222) -> bool:
        """Whether a connection from the relay through the tunnel reaches pi's sshd."""
        with contextlib.suppress(OSError, AssertionError), self.connect(port):
            return True
        return False

    def wait_passing(self, port: int = 2222, *, timeout: float = 30) -> None:
        wait_until(lambda: self.passes(port), what=f"the relay's port {port} leads home", timeout=timeout)


@contextlib.contextmanager
def home(folder: Path, *, options: Mapping[str, str] | None = None) -> Iterator[Home]:
    """A new internet, a relay and a booted pi; `options` are for the relay's sshd_config."""
    with (
        Lab(folder) as lab,
        scene(lab, options=options) as place,
        Booted(lab.pi, binds=installed.binds()) as machine,
    ):
        installed.install(machine)
        machine.shell(
            f"rm -rf /root/.ssh /root/.config /etc/tunneld\n"  # the tester's own files
            f"useradd --create-home --shell /bin/bash vera\nmkdir -p {SYSTEM_PROFILES}\n"
            f"runuser -u vera -- mkdir -p {USER_PROFILES}\n"
            f"ln -s {installed.COMMAND} /usr/local/bin/tunneld"
        )
        for user, at in (("root", "/root"), ("vera", "/home/vera")):
            machine.write(f"{at}/.ssh/id_ed25519", place.keeper.key.path.read_text(), mode=0o600)
            machine.write(f"{at}/.ssh/known_hosts", place.keeper.known_hosts.read_text())
            machine.shell(f"chown -R {user}: {at}/.ssh; chmod 700 {at}/.ssh")
        yield Home(place, machine)
