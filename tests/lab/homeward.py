"""A laptop, and the ssh names by which it reaches the host at home: each stands for one way in which people do it.

pi-home     through the relay as a jump host, whose port 2222 on loopback leads to pi's sshd
pi-forward  the same port of a relay with GatewayPorts, without a jump host
pi-mapped   the home router's own port 22, mapped by hand
pi-lan      pi's own address
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.lab.client import FAR_END, Person, ready
from tests.lab.machine import Machine, end
from tests.lab.net import Lab
from tests.lab.product import TUNNELD, agents, bound_ports
from tests.lab.scene import Scene, scene
from tests.lab.terminal import Terminal
from tests.until import wait_until

FORWARD: Final = 2222
MAPPED: Final = "60.1.1.2"
WAYS: Final = {
    "pi-home": "HostName 127.0.0.1\nPort 2222\nProxyJump relay",
    "pi-forward": "HostName relay\nPort 2222",
    "pi-mapped": f"HostName {MAPPED}",
    "pi-lan": "HostName 192.168.1.2",
}

Snapshot = Mapping[str, Any]  # tunneld.core.pair.pair's


@dataclass(frozen=True, slots=True)
class Homeward:
    """The scene, with a plain `ssh -R` as the tunnel: a client does not depend on the program that holds the tunnel.

    `runtime` is a folder for the guest's sockets. Its path is short, since a socket's path must be.
    """

    scene: Scene
    runtime: Path

    @property
    def lab(self) -> Lab:
        return self.scene.lab

    @property
    def environment(self) -> Mapping[str, str]:
        """A run folder of the guest's own, so that other tests on this machine do not disturb."""
        return {"XDG_RUNTIME_DIR": str(self.runtime)}

    def command(self, way: str = "pi-home", *options: str, far_end: Sequence[str] = FAR_END) -> list[str]:
        """The command line of `tunneld mosh`, to a far end that echoes."""
        return [*TUNNELD, "mosh", "-F", str(self.scene.guest.config), *options, way, "--", *far_end]

    def mosh(
        self, way: str = "pi-home", *options: str, timeout: float = 30, more: Mapping[str, str] | None = None
    ) -> Terminal:
        """`tunneld mosh`, once its far end is ready; `more` is added to its environment."""
        environment = {**self.environment, **(more or {})}
        terminal = Terminal(self.lab.laptop, self.command(way, *options), env=environment)
        return ready(terminal, timeout=timeout)

    def ssh(self, way: str = "pi-home") -> Terminal:
        return self.scene.guest.ssh_terminal(way)

    def snapshot(self) -> Snapshot | None:
        """What `tunneld mosh --paths --json` says of the guest's session; None unless exactly one session answers."""
        asked = self.lab.laptop.run([*TUNNELD, "mosh", "--paths", "--json"], check=False, env=self.environment)
        here = agents(self.lab.laptop)
        sessions = [said for said in map(json.loads, asked.stdout.splitlines()) if said["pid"] in here]
        return sessions[0]["pair"] if len(sessions) == 1 else None

    def wait_for(self, holds: Callable[[Snapshot], object], *, what: str, timeout: float = 20) -> Snapshot:
        """The first snapshot for which `holds` is true.

        Raises:
            AssertionError: none within `timeout` seconds; with the last snapshot.
        """
        seen: list[Snapshot | None] = [None]

        def asked() -> bool:
            seen[:] = [self.snapshot()]
            return seen[0] is not None and bool(holds(seen[0]))

        try:
            wait_until(asked, what=what, timeout=timeout, every=0.1)
        except TimeoutError as late:
            raise AssertionError(f"{late}; last seen: {json.dumps(seen[0], indent=1)}") from None
        assert seen[0] is not None
        return seen[0]

    def wait_direct(self, *, timeout: float = 20) -> Snapshot:
        """Wait until a path between the two machines themselves is in use, without a relay."""
        return self.wait_for(is_direct, what="a direct path is in use", timeout=timeout)

    def wait_relayed(self, *, timeout: float = 20) -> Snapshot:
        return self.wait_for(is_relayed, what="a relayed path is in use", timeout=timeout)

    def wait_stream(self, *, timeout: float = 20) -> Snapshot:
        return self.wait_for(is_on_stream, what="the stream is in use", timeout=timeout)


def is_direct(seen: Snapshot) -> bool:
    return bool(seen["in_use"]["carrier"] == "path" and seen["in_use"].get("kind") != "relay")


def is_relayed(seen: Snapshot) -> bool:
    return bool(seen["in_use"]["carrier"] == "path" and seen["in_use"].get("kind") == "relay")


def is_on_stream(seen: Snapshot) -> bool:
    return bool(seen["in_use"]["carrier"] == "stream")


@contextlib.contextmanager
def homeward(lab: Lab) -> Iterator[Homeward]:
    """Start the servers and the tunnel, and write the guest's configuration.

    Each way works at once, except `pi-mapped`: the test maps the port.
    """
    with (
        tempfile.TemporaryDirectory(prefix="run-", dir="/tmp") as runtime,
        scene(lab, visitors=True) as place,
        _tunnel(lab.pi, place.keeper),
    ):
        place.guest.config.write_text(
            place.guest.config.read_text()
            + "".join(f"Host {name}\n{way}\nHostKeyAlias pi-home\n" for name, way in WAYS.items())
        )
        wait_until(lambda: FORWARD in bound_ports(lab.relay), what="the forward on the relay")
        yield Homeward(place, Path(runtime))


@contextlib.contextmanager
def _tunnel(pi: Machine, keeper: Person) -> Iterator[None]:
    """`ssh -R` from pi. Its session makes sshd send small packets at once; its keepalive keeps the NAT's flow alive."""
    forward = ("-o", "ExitOnForwardFailure=yes", "-R", f"0.0.0.0:{FORWARD}:127.0.0.1:22")
    process = pi.popen(keeper.ssh("-o", "ServerAliveInterval=2", *forward, "relay", "sleep 100000"))
    try:
        yield
    finally:
        end(process)
