"""UDP sockets as the selector loops of our programs use them: none blocks, and none keeps the others waiting."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import TypeVar

ADDRESS_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

UNSPECIFIED = {4: "0.0.0.0", 6: "::"}
"""The address by which a socket is bound to all of this machine's addresses in a family."""

MAX_BATCH = 64
"""Datagrams read from one socket before the others have their turn."""

LONGEST_PACKET = 2048
"""Bytes to read of one packet: more than any of ours, and than any that Ethernet carries whole. So none is cut to a
size that would be taken."""

Received = TypeVar("Received")


def bound_everywhere(family: int, port: int = 0) -> socket.socket:
    """A socket on this port (0: any) of all addresses that the machine has in one family, 4 or 6.

    Raises:
        OSError: the port is taken, or this machine does not have the family.
    """
    sock = socket.socket(ADDRESS_FAMILIES[family], socket.SOCK_DGRAM)
    try:
        if family == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((UNSPECIFIED[family], port))
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def batch(read: Callable[[], Received]) -> Iterator[Received]:
    """What a call such as `sock.recvfrom(2048)` gives, each in turn: until it would block, and MAX_BATCH at most."""
    for _ in range(MAX_BATCH):
        try:
            received = read()
        except BlockingIOError:
            return
        except OSError:
            continue  # an ICMP answer to something that we sent
        yield received
