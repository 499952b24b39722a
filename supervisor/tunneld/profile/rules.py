"""What a profile's values must be, beyond their types.

Each rule takes the value that the user wrote and returns the value that is meant. It raises ValueError where the value
cannot be right; the error's text says what is wrong, and what to write. A path on this host starts at the profile's
folder, unless it is absolute or starts with `~`. A path on the relay is absolute.

Tested in tests/profile/test_problems.py.
"""

from __future__ import annotations

import os
import stat
from ipaddress import ip_address
from pathlib import Path

from tunneld.core.destination import is_one_word, parse_destination, parse_port, split_host_port
from tunneld.core.printable import escaped
from tunneld.profile.address import (
    ForwardAddress,
    PortRange,
    UnixAddress,
    parse_host,
    parse_path,
    parse_ports,
    parse_tcp,
)
from tunneld.profile.lent_files import is_lending, readable
from tunneld.profile.values import Direction

MOST_MOSH_PORTS = 100  # each is a socket on the relay, and mosh needs one port per person who is connected
LOWEST_MOSH_PORT = 1024  # only root may bind the ports below
WILDCARDS = ("0.0.0.0", "::")
# Seconds. For each try the target accepts a connection, and may log it. And as long as a client stays silent, sshd up
# to 10.5 starts its ClientAliveInterval anew with each connection to a listener of that client.
SHORTEST_CANARY = 60


def relay_host(text: str) -> str:
    """A name, an alias from ssh_config, or an address; an IPv6 address stands without brackets here."""
    user, at, host = text.rpartition("@")
    if at:
        raise ValueError(f'{text!r} holds a user: write host = "{host}" and user = "{user}"')
    try:
        host, port = split_host_port(text)
    except ValueError:
        host, port = text, None
    if host and port and port.isdecimal():
        raise ValueError(f'{text!r} holds a port: write host = "{host}" and port = {parse_port(port)}')
    if not host or not is_one_word(text) or "[" in text or "]" in text:
        raise ValueError(f'{text!r} is not a host: write a name or an address, as "relay.example.net"')
    return text


def user_name(text: str) -> str:
    """A login name on the relay."""
    if not is_one_word(text):
        raise ValueError(f'{text!r} is not a user name: write one, as "tunnel"')
    return text


def jump_host(text: str) -> str:
    """One `[USER@]HOST[:PORT]`, as in ProxyJump of ssh_config(5), where commas stand between several."""
    if "," in text:
        raise ValueError(f"{text!r} is several jump hosts: write each as a text of its own")
    parse_destination(text)
    return text.strip()


def listen_address(text: str, direction: Direction, folder: Path) -> ForwardAddress:
    """Where a forward listens: on the relay for a remote forward, on this host for the others."""
    if "/" in text:
        if direction is Direction.DYNAMIC:
            raise ValueError('a SOCKS listener is no Unix socket: write "127.0.0.1:1080"')
        return _socket(text, direction is Direction.REMOTE, folder)
    where = "the relay" if direction is Direction.REMOTE else "this host"
    if (alone := _port_alone(text)) is not None:
        raise ValueError(
            f"{text!r} names no host and would be public on {where}: "
            f'write "127.0.0.1:{alone}", or "0.0.0.0:{alone}" if public is meant'
        )
    host, port = split_host_port(text)
    if port and host == "*":
        raise ValueError(
            f"{text!r} listens on IPv4 or on IPv6, whichever is free, so nobody notices that a stranger has the other: "
            f'write "0.0.0.0:{port}" or "[::]:{port}" (both are public), or "127.0.0.1:{port}"'
        )
    if port and host.lower().rstrip(".") == "localhost" and direction is Direction.REMOTE:
        raise ValueError(
            f"{text!r} listens on 127.0.0.1 or on ::1, whichever is free on the relay, so nobody notices that a "
            f'stranger has the other: write "127.0.0.1:{port}"'
        )
    return parse_tcp(text)


def target_address(text: str, direction: Direction, folder: Path) -> ForwardAddress:
    """Where a forward connects to: from this host for a remote forward, from the relay for a local one."""
    if "/" in text:
        return _socket(text, direction is Direction.LOCAL, folder)
    if (alone := _port_alone(text)) is not None:
        raise ValueError(f'{text!r} names no host: write "127.0.0.1:{alone}"')
    address = parse_tcp(text)
    if address.port == 0:
        raise ValueError("nothing can connect to port 0: write the port on which the target listens")
    if address.host in WILDCARDS:
        raise ValueError(f'{address.host} is for listening: write the target\'s address, as "127.0.0.1:{address.port}"')
    return address


def _port_alone(text: str) -> int | None:
    """The port of `2222` or `:2222`; None for a text that is more than a port."""
    port = text.removeprefix(":")
    return parse_port(port, lowest=0) if port.isdecimal() else None


def _socket(text: str, on_the_relay: bool, folder: Path) -> UnixAddress:
    if not on_the_relay:
        return parse_path(str(expand(text, folder)))
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is a path on the relay, which must be absolute: start it with a slash")
    return parse_path(text)


def mosh_ports(text: str) -> PortRange:
    """The UDP ports of the ingress on the relay."""
    ports = parse_ports(text)
    if ports.first > ports.last:
        raise ValueError(f'{text!r} ends before it starts: write "{ports.last}-{ports.first}"')
    if ports.first < LOWEST_MOSH_PORT:
        raise ValueError(f'{text!r} needs root on the relay: start at {LOWEST_MOSH_PORT} or above, as "60001-60010"')
    if len(ports) > MOST_MOSH_PORTS:
        most = min(ports.first + 9, ports.last)
        raise ValueError(
            f'{text!r} is {len(ports)} ports, and {MOST_MOSH_PORTS} are allowed: write "{ports.first}-{most}"'
        )
    return ports


def mosh_bind(text: str) -> str:
    """The relay's address for the ingress. A name is refused, since `localhost` may be two addresses."""
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(
            f'{text!r} is not an IP address: write "0.0.0.0" for the whole world, or one of the relay\'s addresses'
        ) from None
    return text


def mosh_target(text: str) -> str:
    """The host on which mosh-server listens, seen from this one."""
    if parse_host(text) in WILDCARDS:
        raise ValueError(f'{text!r} is for listening: write the host of mosh-server, as "127.0.0.1"')
    return text


def identity_file(text: str, folder: Path) -> Path:
    """The path of a private key, a public key or a certificate. Nobody but its owner may use a private key."""
    path = existing_file(text, folder)
    if path.suffix == ".pub":  # a public key or a certificate; the SSH agent or a file beside it has the private key
        return path
    status = readable(path).stat()
    # root may let a service's group read its key; nobody needs to let the whole machine read one.
    forbidden = 0o077 if status.st_uid == os.geteuid() else 0o007
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"others can use this private key (its mode is {mode:04o}): chmod 600 {_shown(path)}")
    return path


def existing_file(text: str, folder: Path) -> Path:
    """The path of a file on this host. The file itself, or the copy that was lent to this service, can be read."""
    path = expand(text, folder)
    source, shown = readable(path), _shown(path)
    try:
        is_folder = source.is_dir()  # the file is not opened for it, since opening a FIFO may wait for ever
        source.stat()
    except FileNotFoundError:
        raise ValueError(f"there is no file {shown}: correct the path, or make the file") from None
    except OSError as error:
        if isinstance(error, PermissionError) and is_lending():
            raise ValueError(f"{shown} is not lent to this service: `tunneld enable` the profile again") from None
        raise ValueError(f"{shown} cannot be read ({error.strerror}): correct the path, or its rights") from None
    if is_folder:
        raise ValueError(f"{shown} is a folder: write the file's path")
    if not os.access(source, os.R_OK):
        raise ValueError(f"{shown} cannot be read by this user: correct the path, or its rights")
    return path


def _shown(path: Path) -> str:
    return escaped(str(path))


def expand(text: str, folder: Path) -> Path:
    """The absolute path on this host that `text` means, seen from the profile's folder."""
    path = os.path.expanduser(text)
    if not text or path.startswith("~") or "\0" in path:
        raise ValueError(f"{text!r} leads nowhere: write a path, as {str(folder / 'file')!r}")
    return folder / path


def canary_interval(seconds: float) -> float:
    """Seconds between two tries of a forward, or 0 for no canary."""
    if 0 < seconds < SHORTEST_CANARY:
        raise ValueError(f"{seconds:g} s is too short: write at least {SHORTEST_CANARY}, or 0 for no canary")
    return seconds
