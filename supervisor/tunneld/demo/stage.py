"""What the demo needs before its tunnel starts: a relay, a host, the link between them, keys, and a profile.

Tested in tests/cli/test_demo.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from tunneld.demo.cuttable_link import CuttableLink
from tunneld.demo.ssh_server import Server, Settings, serve
from tunneld.errors import BusyError
from tunneld.profile import Profile, load

# Relay and host are one machine here, and mosh uses the same UDP port on both. So each has its own loopback address.
RELAY, HOST = "127.0.0.1", "127.0.0.2"
FIRST_TCP, FIRST_UDP, UDP_PORTS = 2222, 60001, 10
PORT_POLL = 0.05  # seconds between two looks at ports that other processes hold
PORTS_TRIED = 50  # ports, or ranges of ports, among which we look for a free one

PROFILE = """\
[relay]
host = "{relay}"                    # yours: any machine that runs sshd
port = {relay_port}
user = "demo"
identity = "host_key"                 # paths start at this file's folder, or with ~
known_hosts = "known_hosts"
ssh_config = false

[[forward]]
listen = "{relay}:{listen}"             # on the relay
to = "{host}:{host_port}"                # the host's sshd

[mosh]
ports = "{first}-{last}"                 # UDP, on the relay and on the host
bind = "{relay}"                    # the relay's address for these ports; 0.0.0.0: for the whole world

[keepalive]
interval = 1                          # short, for the demo: a relay that is
count = 2                             # silent for 1 * (2 + 1) s is given up
"""
COMMENT_COLUMN = 34  # where the comments of the profile start, however long its values are


@dataclass(frozen=True, slots=True)
class Stage:
    """All but the tunnel is running. `text` is that of the profile; `mosh` is the command that the person types."""

    relay: Server
    host: Server
    link: CuttableLink
    profile: Profile
    text: str
    listen: int
    mosh: str
    environment: dict[str, str]  # for what the person runs

    async def relay_is_quiet(self) -> None:
        """Wait until the relay's programs have ended, the agent by itself, and until the relay's ports are free."""
        for program in tuple(self.relay.programs):
            await program.gone.wait()
        while self.held_ports():  # noqa: ASYNC110 - only the kernel knows
            await asyncio.sleep(PORT_POLL)

    def held_ports(self) -> list[str]:
        """Those of the relay's ports that a process still holds."""
        tcp = [] if _is_free(socket.SOCK_STREAM, RELAY, self.listen) else [f"TCP {self.listen}"]
        udp = self.profile.mosh.ports if self.profile.mosh else ()
        return tcp + [f"UDP {port}" for port in udp if not _is_free(socket.SOCK_DGRAM, RELAY, port)]


@contextlib.asynccontextmanager
async def set_up(folder: Path) -> AsyncIterator[Stage]:
    """Set the stage in `folder`, which only this user may read.

    Raises:
        BusyError: no ports are free.
    """
    host_key, person_key = _make_key(folder / "host_key"), _make_key(folder / "person_key")
    listen, first = _free_tcp(), _free_udp()
    permitted = f'restrict,port-forwarding,permitlisten="{RELAY}:{listen}" {host_key}'
    environment = _environment(folder)
    relay_settings = Settings(authorized_keys=permitted, address=RELAY, environment=environment)
    host_settings = Settings(authorized_keys=person_key, address=HOST, listeners=False, environment=environment)
    async with serve(relay_settings) as relay, serve(host_settings) as host, CuttableLink(relay.port) as link:
        text = _profile(relay_port=link.port, listen=listen, host_port=host.port, first=first)
        (folder / "known_hosts").write_text(_known(link.port, relay) + _known(listen, host))
        (folder / "ssh_config").write_text(_ssh_config(folder))
        (folder / "pi.toml").write_text(text)
        yield Stage(
            relay=relay,
            host=host,
            link=link,
            profile=load(str(folder / "pi.toml")),
            text=text,
            listen=listen,
            mosh=_mosh(folder, listen=listen, first=first),
            environment=environment | {"TERM": "xterm-256color", "MOSH_PREDICTION_DISPLAY": "never"},
        )


def _profile(**ports: int) -> str:
    text = PROFILE.format(relay=RELAY, host=HOST, last=ports["first"] + UDP_PORTS - 1, **ports)
    return re.sub(r"^([^#\n]+?) +#", lambda row: f"{row[1]:<{COMMENT_COLUMN}}#", text, flags=re.MULTILINE)


def _make_key(path: Path) -> str:
    """Make a key pair, write the private key to `path`, and return the line of the public key."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path.touch(0o600)
    path.write_bytes(key.export_private_key("openssh"))
    return key.export_public_key("openssh").decode()


def _environment(folder: Path) -> dict[str, str]:
    """The environment of the demo's programs, with nothing of the user's but PATH.

    The folder of our own Python comes last there, for machines that have no other Python.
    """
    path = os.environ.get("PATH", os.defpath)
    return {
        "PATH": f"{path}:{Path(sys.executable).parent}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LC_ALL": "C.UTF-8",
        "PS1": "pi$ ",
    }


def _known(port: int, server: Server) -> str:
    return f"[{RELAY}]:{port} {server.host_key.export_public_key('openssh').decode()}"


def _ssh_config(folder: Path) -> str:
    return (
        "User pi\n"
        f'IdentityFile "{folder}/person_key"\n'
        "IdentitiesOnly yes\n"
        "IdentityAgent none\n"
        f'UserKnownHostsFile "{folder}/known_hosts"\n'
        "GlobalKnownHostsFile /dev/null\n"
        "StrictHostKeyChecking yes\n"
    )


def _mosh(folder: Path, *, listen: int, first: int) -> str:
    ssh = shlex.join(["ssh", "-p", str(listen), "-F", str(folder / "ssh_config")])
    return f"mosh -p {first}:{first + UDP_PORTS - 1} --ssh={shlex.quote(ssh)} {RELAY} -- /bin/sh -i"


def _free_tcp() -> int:
    for port in range(FIRST_TCP, FIRST_TCP + PORTS_TRIED):
        if _is_free(socket.SOCK_STREAM, RELAY, port):
            return port
    raise BusyError(f"no TCP port from {FIRST_TCP} to {FIRST_TCP + PORTS_TRIED - 1} is free on {RELAY}")


def _free_udp() -> int:
    """The first port of a range that is free on both addresses."""
    for first in range(FIRST_UDP, FIRST_UDP + PORTS_TRIED * UDP_PORTS, UDP_PORTS):
        ports = range(first, first + UDP_PORTS)
        if all(_is_free(socket.SOCK_DGRAM, address, port) for address in (RELAY, HOST) for port in ports):
            return first
    raise BusyError(f"no {UDP_PORTS} UDP ports from {FIRST_UDP} on are free on {RELAY} and {HOST}")


def _is_free(kind: socket.SocketKind, address: str, port: int) -> bool:
    with socket.socket(type=kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT holds no port
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True
