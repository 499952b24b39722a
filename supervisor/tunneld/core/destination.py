"""The one grammar of `[USER@]HOST[:PORT]`: jump hosts, servers and listeners are all read by it.

A HOST is a name or an address; an IPv6 address stands in brackets as soon as a port may follow. As in ssh(1), the last
`@` ends the user.
"""

from __future__ import annotations

from typing import NamedTuple

HIGHEST_PORT = 65535

SCHEME = "ssh://"
"""ssh(1) and ProxyJump of ssh_config(5) take a destination as a URI as well."""


class Destination(NamedTuple):
    """One SSH server. None: the user or the port was not written, and somebody else's default counts."""

    user: str | None
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port is not None else "")


def parse_destination(text: str) -> Destination:
    """`[USER@]HOST[:PORT]` or `ssh://[USER@]HOST[:PORT]`, with blanks around it.

    Raises:
        ValueError: a sentence that says what is wrong, and what would be right.
    """
    written = text.strip()
    rest = written[len(SCHEME) :].removesuffix("/") if written.startswith(SCHEME) else written
    user, at, place = rest.rpartition("@")
    try:
        host, port = split_host_port(place)
    except ValueError:
        host, port = "", None
    if not _is_word(host) or "/" in host or (at and not _is_word(user)):
        raise ValueError(f'{written!r} names no host: write "USER@HOST:PORT", of which HOST alone is needed')
    return Destination(user or None, host, None if port is None else parse_port(port))


def split_host_port(text: str) -> tuple[str, str | None]:
    """The host without brackets, and what follows the colon behind it; None where no colon does.

    Raises:
        ValueError: brackets that do not pair, or several colons outside of them.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or "[" in host or (rest and not rest.startswith(":")):
            raise ValueError(f'{text!r} has brackets that do not pair: write "[::1]:22"')
        port = rest[1:] if rest else None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is not None and (":" in port or "[" in port or "]" in port):
        raise ValueError(f'{text!r} is ambiguous: write an IPv6 address in brackets, as "[::1]:22"')
    if "[" in host or "]" in host:
        raise ValueError(f'{text!r} has brackets that do not pair: write "[::1]:22"')
    return host, port


def parse_port(text: str, *, lowest: int = 1) -> int:
    """A port from `lowest` (0 where the listening side may choose) to 65535.

    Raises:
        ValueError: a sentence that says what is wrong, and what would be right.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and lowest <= int(text) <= HIGHEST_PORT):
        raise ValueError(f"{text!r} is not a port: write a number from {lowest} to {HIGHEST_PORT}")
    return int(text)


def _is_word(text: str) -> bool:
    """Something that ssh would take neither for an option nor for two words."""
    return bool(text) and not text.startswith("-") and text.isprintable() and not any(map(str.isspace, text))
