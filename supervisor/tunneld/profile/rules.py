"""What a profile's values must be, beyond their types.

Each rule takes what the user wrote and answers the value meant, or raises ValueError with a sentence: what is wrong,
what would be right. Paths on this host start at the profile's folder unless they are absolute or start with `~`;
paths on the relay are absolute.
"""

from __future__ import annotations

import os
import re
import stat
from ipaddress import ip_address
from pathlib import Path

from tunneld.profile.address import (
    ForwardAddress,
    PortRange,
    TcpAddress,
    UnixAddress,
    parse_host,
    parse_path,
    parse_port,
    parse_ports,
    parse_tcp,
)
from tunneld.profile.lent_files import is_lending, readable
from tunneld.profile.values import Direction

MOST_MOSH_PORTS = 100  # a socket each on the relay; mosh itself needs one per person connected
WILDCARDS = ("0.0.0.0", "::")
# Seconds. Each try is a connection that the target has to take, and log; and sshd up to 10.5 puts off its question to
# a silent client for each connection to that client's listener.
SHORTEST_CANARY = 60

_NO_HOST = re.compile(r":?([0-9]+)")
_JUMP = re.compile(r"(?:([^@\s]+)@)?(\[[^\[\]]*\]|[^:@,\[\]\s]+)(?::([^:]*))?")


def relay_host(text: str) -> str:
    """A name, an address, or an alias from ssh_config."""
    if "@" in text:
        user, _, host = text.rpartition("@")
        raise ValueError(f'{text!r} holds a user: write host = "{host}" and user = "{user}"')
    if match := re.fullmatch(r"([^:]+|\[.*\]):([0-9]+)", text):
        raise ValueError(f'{text!r} holds a port: write host = "{match[1].strip("[]")}" and port = {match[2]}')
    if not text or re.search(r"[\s\x00-\x1f\x7f\[\]]", text) or text.startswith("-"):
        raise ValueError(f'{text!r} is not a host: write a name or an address, as "relay.example.net"')
    return text


def user_name(text: str) -> str:
    if not text or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError(f'{text!r} is not a user name: write one, as "tunnel"')
    return text


def jump_host(text: str) -> str:
    """One `[USER@]HOST[:PORT]`, as in ssh's ProxyJump."""
    host = text.strip()
    match = _JUMP.fullmatch(host)
    if match is None or host.startswith("-"):
        raise ValueError(f'{host!r} is not a jump host: write "USER@HOST:PORT", of which HOST alone is needed')
    if match[3] is not None and parse_port(match[3]) == 0:
        raise ValueError(f"{host!r} has port 0: write sshd's port, which is 22 as a rule")
    return host


def listen_address(text: str, direction: Direction, folder: Path) -> ForwardAddress:
    """Where a forward listens: on the relay for a remote one, on this host for the others."""
    if "/" in text:
        if direction is Direction.DYNAMIC:
            raise ValueError('a SOCKS listener is no Unix socket: write "127.0.0.1:1080"')
        return _socket(text, direction is Direction.REMOTE, folder)
    where = "the relay" if direction is Direction.REMOTE else "this host"
    if match := _NO_HOST.fullmatch(text):
        raise ValueError(
            f"{text!r} names no host and would be public on {where}: "
            f'write "127.0.0.1:{match[1]}", or "0.0.0.0:{match[1]}" if public is meant'
        )
    host, colon, port = text.rpartition(":")
    if colon and host == "*":
        raise ValueError(
            f"{text!r} succeeds when either of IPv4 and IPv6 is free, so a port held by another goes unnoticed: "
            f'write "0.0.0.0:{port}" or "[::]:{port}" (both are public), or "127.0.0.1:{port}"'
        )
    if colon and host.lower().rstrip(".") == "localhost" and direction is Direction.REMOTE:
        raise ValueError(
            f"{text!r} means 127.0.0.1 or ::1, whichever is free on the relay, so a port held by another goes "
            f'unnoticed: write "127.0.0.1:{port}"'
        )
    return parse_tcp(text)


def target_address(text: str, direction: Direction, folder: Path) -> ForwardAddress:
    """What a forward connects to: on this host for a remote one, on the relay's side for a local one."""
    if "/" in text:
        return _socket(text, direction is Direction.LOCAL, folder)
    if match := _NO_HOST.fullmatch(text):
        raise ValueError(f'{text!r} names no host: write "127.0.0.1:{match[1]}"')
    address = parse_tcp(text)
    _reachable(address)
    return address


def _reachable(address: TcpAddress) -> None:
    if address.port == 0:
        raise ValueError("nothing can connect to port 0: write the port on which the target listens")
    if address.host in WILDCARDS:
        raise ValueError(f'{address.host} is for listening: write the target\'s address, as "127.0.0.1:{address.port}"')


def _socket(text: str, on_the_relay: bool, folder: Path) -> UnixAddress:
    if not on_the_relay:
        return parse_path(str(expand(text, folder)))
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is on the relay, where only whole paths work: start it with a slash")
    return parse_path(text)


def mosh_ports(text: str) -> PortRange:
    ports = parse_ports(text)
    if ports.first > ports.last:
        raise ValueError(f'{text!r} ends before it starts: write "{ports.last}-{ports.first}"')
    if ports.first < 1024:
        raise ValueError(f'{text!r} needs root on the relay: start at 1024 or above, as "60001-60010"')
    if len(ports) > MOST_MOSH_PORTS:
        most = min(ports.first + 9, ports.last)
        raise ValueError(f'{text!r} is {len(ports)} ports, and {MOST_MOSH_PORTS} are the most: "{ports.first}-{most}"')
    return ports


def mosh_bind(text: str) -> str:
    """The relay's address for the ingress: an address, since the name `localhost` is two of them."""
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(
            f'{text!r} is not an IP address: write "0.0.0.0" for the whole world, or one of the relay\'s addresses'
        ) from None
    return text


def mosh_target(text: str) -> str:
    if parse_host(text) in WILDCARDS:
        raise ValueError(f'{text!r} is for listening: write the host of mosh-server, as "127.0.0.1"')
    return text


def identity_file(text: str, folder: Path) -> Path:
    """A private key, a certificate or a public key; a private one is readable to its owner alone."""
    path = existing_file(text, folder)
    if path.suffix == ".pub":  # a public key or a certificate; the private half is with the agent or beside it
        return path
    status = readable(path).stat()
    # A key that root owns may be lent to a service's group; nobody needs to lend one to the world.
    forbidden = 0o077 if status.st_uid == os.geteuid() else 0o007
    if status.st_mode & forbidden:
        mode = stat.S_IMODE(status.st_mode)
        raise ValueError(f"others can use this private key (its mode is {mode:04o}): chmod 600 {_shown(path)}")
    return path


def existing_file(text: str, folder: Path) -> Path:
    """A file on this host that can be read, if only as the copy that a service was lent."""
    path = expand(text, folder)
    source = readable(path)
    try:
        is_folder = source.is_dir()  # asked, not opened: an open waits for ever on a FIFO
        source.stat()
    except FileNotFoundError:
        raise ValueError(f"there is no file {_shown(path)}: correct the path, or make the file") from None
    except OSError as error:
        if isinstance(error, PermissionError) and is_lending():
            raise ValueError(f"{_shown(path)} is not lent to this service: `tunneld enable` it once more") from None
        raise ValueError(f"{_shown(path)} cannot be read ({error.strerror}): correct the path, or its rights") from None
    if is_folder:
        raise ValueError(f"{_shown(path)} is a folder: write the file's path")
    if not os.access(source, os.R_OK):
        raise ValueError(f"{_shown(path)} cannot be read by this user: correct the path, or its rights")
    return path


def expand(text: str, folder: Path) -> Path:
    """A path on this host."""
    path = os.path.expanduser(text)
    if not text or path.startswith("~") or "\0" in path:
        raise ValueError(f"{text!r} leads nowhere: write a path, as {str(folder / 'file')!r}")
    return folder / path


def _shown(path: Path) -> str:
    """A path as it is, as long as it stays on one line."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def canary_interval(seconds: float) -> float:
    if 0 < seconds < SHORTEST_CANARY:
        raise ValueError(f"{seconds:g} s is too short: write at least {SHORTEST_CANARY}, or 0 for no canary")
    return seconds
