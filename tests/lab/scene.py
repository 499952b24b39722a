"""The people and servers of the main job, around a tunnel from pi to the relay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tests.lab.client import Person, person
from tests.lab.net import Lab
from tests.lab.sshd import Sshd
from tests.lab.terminal import Terminal

JUMP_WAY: Final = ("-J", "relay", "-p", "2222", "-o", "HostName=127.0.0.1", "-o", "HostKeyAlias=pi-home")


@dataclass(frozen=True, slots=True)
class Scene:
    """The person `keeper` holds the tunnel on pi, `guest` sits at the laptop; each trusts the servers he logs in to."""

    lab: Lab
    relay: Sshd
    home: Sshd
    keeper: Person
    guest: Person

    def mosh(self, *, timeout: float = 30) -> Terminal:
        """Stock mosh through a relay with GatewayPorts, by the command line of the README."""
        return self.guest.mosh_terminal("relay", "-p", "2222", timeout=timeout)

    def mosh_by_jump(self) -> Terminal:
        """Stock mosh through a relay without GatewayPorts, by the other documented command line.

        The script's own ProxyCommand replaces ProxyJump (mosh#970), unless the script resolves the address locally. It
        then passes that address to ssh, where HostName replaces it by the relay's loopback.
        """
        return self.guest.mosh_terminal("relay", *JUMP_WAY, options=("--experimental-remote-ip=local",))

    def ssh(self) -> Terminal:
        return self.guest.ssh_terminal("-p", "2222", "relay")


@contextlib.contextmanager
def scene(
    lab: Lab,
    *,
    options: Mapping[str, str] | None = None,
    authorized: Callable[[str], str] = str,
    visitors: bool = False,
) -> Iterator[Scene]:
    """Start an sshd on the relay and one on pi, and make the two people.

    Args:
        options: for the relay's sshd_config, on top of `GatewayPorts clientspecified`.
        authorized: makes the relay's authorized_keys line of the keeper's key.
        visitors: whether the guest may log in on the relay too.
    """
    keeper, guest = person(lab.pi, "keeper"), person(lab.laptop, "guest")
    allowed = (authorized(keeper.key.public), *([guest.key.public] if visitors else []))
    relay = Sshd(lab.relay, allowed, {"GatewayPorts": "clientspecified"} | dict(options or {}))
    with relay, Sshd(lab.pi, (guest.key.public,)) as home:
        keeper.trust(relay.known_hosts("relay"))
        guest.trust(relay.known_hosts("relay"))
        guest.trust(home.known_hosts("[relay]:2222", "pi-home"))
        yield Scene(lab, relay, home, keeper, guest)
