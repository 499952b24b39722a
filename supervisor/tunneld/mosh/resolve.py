"""Names that the UDP paths need, looked up in a thread: that of DEST itself, and those of STUN servers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import NamedTuple

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.offer import reachable

MOST_PER_SERVER = 2
"""Addresses of one STUN server that are asked: usually one of each family."""

MOST_HOSTS = 8
"""Addresses of DEST that are tried."""

MOST_SERVERS = 8
"""Addresses of all STUN servers together that are asked."""


class ResolvedNames(NamedTuple):
    """`hosts` are DEST's addresses, `servers` those of STUN servers, `unknown` the servers without a usable one."""

    hosts: list[str]
    servers: list[UdpAddress]
    unknown: list[str]


class NameLookup:
    """`fd` is readable when `found` is complete."""

    def __init__(self, host: str | None, servers: Sequence[tuple[str, int]]) -> None:
        """
        Args:
            host: DEST's name; None where only a jump host knows it.
            servers: (host, port) pairs of STUN servers.
        """
        self._wanted = host, tuple(servers)
        self.found = ResolvedNames([], [], [])
        self._reader, self._writer = socket.socketpair()
        self.fd = self._reader.fileno()
        threading.Thread(target=self._run, name="name-lookup", daemon=True).start()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        host, servers = self._wanted
        hosts = reachable_addresses(host, 0)[:MOST_HOSTS] if host else []
        answers = [(name, reachable_addresses(name, port)[:MOST_PER_SERVER]) for name, port in servers]
        asked = [address for _, found in answers for address in found]
        unknown = [name for name, found in answers if not found]
        self.found = ResolvedNames([each.host for each in hosts], asked[:MOST_SERVERS], unknown)
        with contextlib.suppress(OSError):
            self._writer.send(b".")


def reachable_addresses(host: str, port: int) -> list[UdpAddress]:
    """The host's addresses that other machines can reach, the first of each family first; empty where it is unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    named = [reachable(str(each[4][0]).partition("%")[0]) for each in found]
    usable = list(dict.fromkeys(UdpAddress(name, port) for name in named if name))
    first = [next(each for each in usable if each.family == family) for family in {each.family for each in usable}]
    return [*sorted(first, key=usable.index), *(each for each in usable if each not in first)]
