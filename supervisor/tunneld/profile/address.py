"""Addresses and port ranges: how they are written, and what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

HIGHEST_PORT = 65535
# sockaddr_un.sun_path is 108 bytes on Linux, with the NUL at its end (unix(7)).
LONGEST_SOCKET_PATH = 107

_BRACKETS = re.compile(r"\[([^\[\]]*)\]:([^:]*)")
_PLAIN = re.compile(r"([^:\[\]]*):([^:]*)")
_NUMBER = re.compile(r"[0-9]{1,5}")
_NAME = re.compile(r"\w(?:[\w.-]*\w)?\.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host's name or address, without brackets, and a port; port 0 lets the listening side choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket's path."""

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
    """The address that `text` writes: `host:port`, `[IPv6]:port`, or a path, known by its slash.

    Raises:
        ValueError: a sentence that says what is wrong and what would be right.
    """
    return parse_path(text) if "/" in text else parse_tcp(text)


def parse_path(text: str) -> UnixAddress:
    """A Unix socket's address. Raises ValueError where no socket can have it."""
    if _CONTROL.search(text):
        raise ValueError("a socket's path has no control characters")
    if len(text.encode()) > LONGEST_SOCKET_PATH:
        raise ValueError(f"a socket's path has at most {LONGEST_SOCKET_PATH} bytes: write a shorter one")
    return UnixAddress(text)


def parse_tcp(text: str) -> TcpAddress:
    """A host and a port. Raises ValueError with a sentence."""
    match = _BRACKETS.fullmatch(text) or _PLAIN.fullmatch(text)
    if match is None:
        raise ValueError(_why_not_tcp(text))
    host, port = match[1], match[2]
    return TcpAddress(parse_host(host), parse_port(port))


def parse_port(text: str) -> int:
    """A port, 0 included. Raises ValueError with a sentence."""
    if not _NUMBER.fullmatch(text) or int(text) > HIGHEST_PORT:
        raise ValueError(f"{text!r} is not a port: write a number up to {HIGHEST_PORT}")
    return int(text)


def parse_host(text: str) -> str:
    """A host's name or IP address (no brackets). Raises ValueError with a sentence."""
    try:
        ip_address(text)
    except ValueError:
        if ":" in text or re.fullmatch(r"[0-9.]+", text) or not _NAME.fullmatch(text) or not _is_resolvable(text):
            raise ValueError(f'{text!r} is neither a host name nor an IP address: write one, as "127.0.0.1"') from None
    return text


def _is_resolvable(name: str) -> bool:
    """Whether a resolver takes it at all: labels of 1 to 63 bytes; socket.getaddrinfo raises UnicodeError otherwise."""
    try:
        name.encode("idna")
    except UnicodeError:
        return False
    return True


def parse_ports(text: str) -> PortRange:
    """A range of ports, or a single one. Raises ValueError with a sentence."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if match is None:
        raise ValueError(f'{text!r} is not a range of ports: write the first and the last, as "60001-60010"')
    return PortRange(parse_port(match[1]), parse_port(match[2] or match[1]))


def _why_not_tcp(text: str) -> str:
    if text.count(":") > 1:
        return f'{text!r} is ambiguous: write an IPv6 address in brackets, as "[::1]:22"'
    if _NUMBER.fullmatch(text):
        return f'{text!r} names no host: write "127.0.0.1:{text}"'
    return f'{text!r} is not an address: write "127.0.0.1:22", or the path of a Unix socket'
