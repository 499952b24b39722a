"""The one grammar of `[USER@]HOST[:PORT]`: jump hosts, servers and listeners are all read by it.

A HOST is a name or an address. An IPv6 address stands in brackets wherever a port may follow it. As in ssh(1), the last
`@` ends the user.
"""

from __future__ import annotations

from typing import NamedTuple

HIGHEST_PORT = 65535

SCHEME = "ssh://"
"""ssh(1) and ProxyJump of ssh_config(5) take a destination as a URI as well."""


class Destination(NamedTuple):
    """An SSH server. None as `user` or `port`: it was not written, and whoever dials takes another default."""

    user: str | None
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port is not None else "")


def parse_destination(text: str) -> Destination:
    """Read `[USER@]HOST[:PORT]` or `ssh://[USER@]HOST[:PORT]`; blanks around it are ignored.

    Raises:
        ValueError: its text says what is wrong, and what to write.
    """
    written = text.strip()
    rest = written[len(SCHEME) :].removesuffix("/") if written.startswith(SCHEME) else written
    user, at, place = rest.rpartition("@")
    try:
        host, port = split_host_port(place)
    except ValueError:
        host, port = "", None
    if not is_one_word(host) or (at and not is_one_word(user)) or "/" in user + host:
        raise ValueError(f'{written!r} names no host: write "USER@HOST:PORT", of which HOST alone is needed')
    return Destination(user or None, host, None if port is None else parse_port(port))


def split_host_port(text: str) -> tuple[str, str | None]:
    """Split `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT` at its colon; neither part is judged.

    Returns:
        The host without its brackets, and the text behind the colon; None instead where there is no colon.

    Raises:
        ValueError: brackets stand in the wrong place, or there are several colons outside of them.
    """
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or "[" in host or (rest and not rest.startswith(":")):
            raise ValueError(_wrong_brackets(text))
        port = rest[1:] if rest else None
    else:
        host, colon, after = text.partition(":")
        port = after if colon else None
    if port is not None and (":" in port or "[" in port or "]" in port):
        raise ValueError(f'{text!r} is ambiguous: write an IPv6 address in brackets, as "[::1]:22"')
    if "[" in host or "]" in host:
        raise ValueError(_wrong_brackets(text))
    return host, port


def parse_port(text: str, *, lowest: int = 1) -> int:
    """Read a port from `lowest` (0 where the listening side may choose one) to 65535.

    Raises:
        ValueError: its text says what is wrong, and what to write.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and lowest <= int(text) <= HIGHEST_PORT):
        raise ValueError(f"{text!r} is not a port: write a number from {lowest} to {HIGHEST_PORT}")
    return int(text)


def is_one_word(text: str) -> bool:
    """Whether ssh would take `text` for a user or a host: not for an option, and not for several words."""
    return bool(text) and not text.startswith("-") and text.isprintable() and not any(map(str.isspace, text))


def _wrong_brackets(text: str) -> str:
    return f'{text!r} has brackets in the wrong place: write "[::1]:22"'
