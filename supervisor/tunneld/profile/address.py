"""The addresses and port ranges of a profile: how people write them, and their values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from tunneld.core.destination import parse_port, split_host_port

# Bytes. sockaddr_un.sun_path is 108 bytes on Linux, with the NUL at its end (unix(7)).
LONGEST_SOCKET_PATH = 107

_HOST_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` is a name or an address without brackets. Port 0 lets the listening side choose one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The Unix socket at `path`."""

    path: str

    def __str__(self) -> str:
        return self.path


ForwardAddress = TcpAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from `first` to `last`, both included."""

    first: int
    last: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_address(text: str) -> ForwardAddress:
    """Read `HOST:PORT`, `[IPv6]:PORT`, or the path of a Unix socket, which has a slash in it.

    Raises:
        ValueError: its text says what is wrong, and what to write.
    """
    return parse_path(text) if "/" in text else parse_tcp(text)


def parse_path(text: str) -> UnixAddress:
    """The Unix socket at this path.

    Raises:
        ValueError: no socket can have this path; its text says why.
    """
    if _CONTROL.search(text):
        raise ValueError("a socket's path has no control characters")
    if len(text.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes: write a shorter one")
    return UnixAddress(text)


def parse_tcp(text: str) -> TcpAddress:
    """Read `HOST:PORT` or `[IPv6]:PORT`, where the port may be 0.

    Raises:
        ValueError: its text says what is wrong, and what to write.
    """
    host, port = split_host_port(text)
    if port is None:
        raise ValueError(_why_incomplete(text))
    return TcpAddress(parse_host(host), parse_port(port, lowest=0))


def parse_host(text: str) -> str:
    """`text` itself, where it is a host's name or an IP address without brackets.

    Raises:
        ValueError: its text says what to write.
    """
    try:
        ip_address(text)
    except ValueError:
        if re.fullmatch(r"[0-9.]+", text) or not _HOST_NAME.fullmatch(text) or not _is_resolvable(text):
            raise ValueError(f'{text!r} is neither a host name nor an IP address: write one, as "127.0.0.1"') from None
    return text


def _is_resolvable(name: str) -> bool:
    """Whether each label has 1 to 63 bytes; socket.getaddrinfo raises UnicodeError for others."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def parse_ports(text: str) -> PortRange:
    """Read `FIRST-LAST`, or a single port. `last` may be lower than `first`: the caller judges that.

    Raises:
        ValueError: its text says what is wrong, and what to write.
    """
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", text)
    if match is None:
        raise ValueError(f'{text!r} is not a range of ports: write the first and the last, as "60001-60010"')
    return PortRange(parse_port(match[1], lowest=0), parse_port(match[2] or match[1], lowest=0))


def _why_incomplete(text: str) -> str:
    """What is wrong with a text that has no colon for its port."""
    if text.startswith("["):
        return f'{text!r} has no port: write "{text}:22"'
    if text.isascii() and text.isdecimal():
        return f'{text!r} names no host: write "127.0.0.1:{text}"'
    return f'{text!r} is not an address: write "127.0.0.1:22", or the path of a Unix socket'
