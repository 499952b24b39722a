"""The addresses of this machine, asked for in ways that Linux, macOS and BSD share. No packet is sent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import time

FAR_HOSTS = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849). Nobody has them, so it is the default route that leads to them."""

MOST_OWN_ADDRESSES = 12
"""A pair takes 16 candidates. A machine with more addresses than this has them for containers."""

SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" or "bsd" in sys.platform else 0x8915
"""The ioctl that asks for an interface's IPv4 address (sys/sockio.h, linux/sockios.h): bytes 20 to 23 of its answer."""

UNUSABLE = 0x08 | 0x20 | 0x40
"""Flags in /proc/net/if_inet6 (linux/if_addr.h): IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE."""


def own() -> list[str]:
    """The addresses at which others may reach this machine, as text, at most MOST_OWN_ADDRESSES.

    Those that the default routes use come first, then the other ones of IPv4, then those of IPv6.
    """
    found = [*filter(None, map(source, FAR_HOSTS)), *_ipv4(), *_ipv6()]
    return [host for host in dict.fromkeys(found) if is_reachable(host)][:MOST_OWN_ADDRESSES]


def signature() -> object:
    """A value that differs from an earlier one when addresses or default routes have changed since."""
    return [source(family) for family in FAR_HOSTS], sorted(own())


def slept() -> float:
    """Seconds, of any origin, for which this machine has slept; always 0 where the system does not tell.

    Linux: CLOCK_BOOTTIME goes on in suspend, and CLOCK_MONOTONIC does not (clock_gettime(2)).
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):  # macOS, whose CLOCK_MONOTONIC goes on while it sleeps
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


def is_own_port(family: int, port: int) -> bool:
    """Whether our own user holds this UDP port. Only Linux tells (proc_net(5)); elsewhere the answer is always yes.

    `family` is socket.AF_INET or socket.AF_INET6.
    """
    try:
        with open("/proc/net/udp6" if family == socket.AF_INET6 else "/proc/net/udp") as lines:
            rows = [line.split() for line in lines][1:]
    except OSError:
        return True
    return any(int(row[1].rpartition(":")[2], 16) == port and int(row[7]) == os.geteuid() for row in rows)


def source(family: socket.AddressFamily) -> str | None:
    """The address that packets of this family have as their source; None where there is no default route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((FAR_HOSTS[family], 9))
            host: str = sock.getsockname()[0]
            return host
    except OSError:
        return None


def _ipv4() -> list[str]:
    """The first IPv4 address of each interface."""
    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # this interface has none
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", os.fsencode(name)))
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6() -> list[str]:
    """The IPv6 addresses in Linux's list, whose lines are: address, index, prefix length, scope, flags, name. None on
    other systems, which have no such list."""
    found = []
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as lines:
        for address, _, _, _, flags, _ in map(str.split, lines):
            if not int(flags, 16) & UNUSABLE:
                found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)))
    return found


def is_reachable(host: str) -> bool:
    """Whether other machines can use this address: not those of the loopback, nor link-local ones, which mean nothing
    without the name of an interface (RFC 3927, RFC 4291 section 2.5.6)."""
    if ":" not in host:
        return not host.startswith(("127.", "169.254.", "0."))
    return host not in ("::1", "::") and not host.lower().startswith(("fe8", "fe9", "fea", "feb"))
