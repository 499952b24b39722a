"""Who listens on the ports that a session wants, as Linux's tables of sockets tell (proc_net(5)).

The takeover runs first, and waits for nothing that is needed only here: functions import `socket` and `pwd` themselves.
"""

from __future__ import annotations

import os
import sys

LISTENING = "0A"
"""TCP_LISTEN in /proc/net/tcp, which lists the sockets that listen first (tcp_ipv4.c)."""


def holders(listens: list[tuple[str, int]]) -> list[list[object] | None]:
    """For each host and port: whether it is our own user who listens there, and that user's name. None where nobody
    does."""
    taken = listening_sockets()
    found: list[list[object] | None] = []
    for host, port in listens:
        wanted = packed_addresses(host)
        uid = next((uid for address, at, uid in taken if at == port and is_in_the_way(address, wanted)), None)
        found.append(None if uid is None else [uid == os.geteuid(), user_name(uid)])
    return found


def listening_sockets() -> list[tuple[bytes, int, int]]:
    """Packed address, port and user id of each TCP socket that listens; none where /proc does not tell."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as file:
                next(file)
                for line in file:
                    fields = line.split()
                    if fields[3] != LISTENING:
                        break
                    address, _, port = fields[1].partition(":")
                    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
                    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                    found.append((packed, int(port, 16), int(fields[7])))
        except (OSError, StopIteration):
            continue
    return found


def packed_addresses(host: str) -> set[bytes]:
    """The addresses that a forward's host means to sshd, packed. Empty where it means every address, or is a name that
    sshd has to look up."""
    import socket

    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return {socket.inet_pton(family, host)}
        except OSError:
            continue
    if host != "localhost":
        return set()
    return {socket.inet_pton(socket.AF_INET, "127.0.0.1"), socket.inet_pton(socket.AF_INET6, "::1")}


def is_in_the_way(address: bytes, wanted: set[bytes]) -> bool:
    """Whether a socket on this address keeps another one from a wanted address.

    An address of zeros means all addresses, and so does an empty set.
    """
    return not wanted or address in wanted or not any(address) or not all(any(each) for each in wanted)


def user_name(uid: int) -> str:
    """The name of the user with this id; the number itself where the system knows no name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
