"""Names that the paths need, looked up in a thread: the far machine's own, and those of STUN servers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import NamedTuple

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.offer import reachable

EACH = 2
"""Addresses of one STUN server that are asked: mostly one of each family."""

MOST_HOSTS = 8
"""Addresses of the far machine that are tried."""

MOST_SERVERS = 8


class ResolvedNames(NamedTuple):
    """`unknown` are names of servers without an address that can be asked."""

    hosts: list[str]
    servers: list[UdpAddress]
    unknown: list[str]


class NameLookup:
    """`fd` is readable when `found` is complete. `host` is the far machine's name, None where only a jump host knows
    it; `servers` are (host, port) pairs."""

    def __init__(self, host: str | None, servers: Sequence[tuple[str, int]]) -> None:
        self._wanted = host, tuple(servers)
        self.found = ResolvedNames([], [], [])
        self._reader, self._writer = socket.socketpair()
        self.fd = self._reader.fileno()
        threading.Thread(target=self._run, name="lookup", daemon=True).start()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def _run(self) -> None:
        host, servers = self._wanted
        hosts = addresses(host, 0)[:MOST_HOSTS] if host else []
        answers = [(host, addresses(host, port)[:EACH]) for host, port in servers]
        asked = [address for _, found in answers for address in found]
        unknown = [host for host, found in answers if not found]
        self.found = ResolvedNames([each.host for each in hosts], asked[:MOST_SERVERS], unknown)
        with contextlib.suppress(OSError):
            self._writer.send(b".")


def addresses(host: str, port: int) -> list[UdpAddress]:
    """Those at which others can be reached, one of each family first; none where the name is unknown."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    named = [reachable(str(each[4][0]).partition("%")[0]) for each in found]
    usable = list(dict.fromkeys(UdpAddress(name, port) for name in named if name))
    first = [next(each for each in usable if each.family == family) for family in {each.family for each in usable}]
    return [*sorted(first, key=usable.index), *(each for each in usable if each not in first)]
