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
    """`keeper` holds the tunnel on pi, `guest` sits at the laptop; each trusts the servers that he should."""

    lab: Lab
    relay: Sshd
    home: Sshd
    keeper: Person
    guest: Person

    def mosh(self, *, timeout: float = 30) -> Terminal:
        """Stock mosh through a relay with GatewayPorts: the README's line."""
        return self.guest.mosh_terminal("relay", "-p", "2222", timeout=timeout)

    def mosh_by_jump(self) -> Terminal:
        """Stock mosh through a relay without GatewayPorts: the documented other line.

        The script's own ProxyCommand displaces ProxyJump (mosh#970) unless the address is resolved locally; ssh then
        gets that address as its host, and HostName says which port of the relay is meant.
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
    """Servers on the relay and on pi.

    Args:
        options: for the relay's sshd_config, on top of `GatewayPorts clientspecified`.
        authorized: makes the relay's authorized_keys line of the keeper's key.
        visitors: the guest may log in on the relay too.
    """
    keeper, guest = person(lab.pi, "keeper"), person(lab.laptop, "guest")
    allowed = (authorized(keeper.key.public), *([guest.key.public] if visitors else []))
    relay = Sshd(lab.relay, allowed, {"GatewayPorts": "clientspecified"} | dict(options or {}))
    with relay, Sshd(lab.pi, (guest.key.public,)) as home:
        keeper.trust(relay.known_hosts("relay"))
        guest.trust(relay.known_hosts("relay"))
        guest.trust(home.known_hosts("[relay]:2222", "pi-home"))
        yield Scene(lab, relay, home, keeper, guest)
