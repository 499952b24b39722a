"""The addresses of this machine, asked in ways that Linux, macOS and BSD share; stdlib only, no packet is sent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import time

TOWARD = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849): nobody's, so that the default route is what leads to them."""

MOST = 12
"""Addresses: a pair takes 16 candidates, and a machine with more has them for containers."""

SIOCGIFADDR = 0xC0206921 if sys.platform == "darwin" or "bsd" in sys.platform else 0x8915
"""The ioctl for an interface's IPv4 address: sys/sockio.h, linux/sockios.h. The answer has it in bytes 20 to 23."""

UNUSABLE = 0x08 | 0x20 | 0x40
"""Flags in /proc/net/if_inet6 (linux/if_addr.h): IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE."""


def own() -> list[str]:
    """Where others may reach this machine: numeric, IPv4 and IPv6, first those that the default routes use."""
    found = [*filter(None, map(source, TOWARD)), *_ipv4(), *_ipv6()]
    return [host for host in dict.fromkeys(found) if is_reachable(host)][:MOST]


def signature() -> object:
    """Something that is another when addresses or routes are."""
    return [source(family) for family in TOWARD], sorted(own())


def slept() -> float:
    """Seconds, of any origin, that this machine has been asleep for; they grow by nothing else."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if hasattr(time, "CLOCK_UPTIME_RAW"):  # macOS, whose CLOCK_MONOTONIC goes on in its sleep
        return time.clock_gettime(time.CLOCK_MONOTONIC) - time.clock_gettime(time.CLOCK_UPTIME_RAW)
    return 0.0


def is_own_port(family: int, port: int) -> bool:
    """Whether a UDP port here is this user's. Only Linux tells; elsewhere it is taken for granted."""
    try:
        with open("/proc/net/udp6" if family == socket.AF_INET6 else "/proc/net/udp") as lines:
            rows = [line.split() for line in lines][1:]
    except OSError:
        return True
    return any(int(row[1].rpartition(":")[2], 16) == port and int(row[7]) == os.geteuid() for row in rows)


def source(family: socket.AddressFamily) -> str | None:
    """The address that packets of this family leave with; None where no route is."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((TOWARD[family], 9))
            host: str = sock.getsockname()[0]
            return host
    except OSError:
        return None


def _ipv4() -> list[str]:
    """Each interface's first IPv4 address."""
    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has none
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", os.fsencode(name)))
                found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6() -> list[str]:
    """Linux's list: address, index, prefix length, scope, flags, name; nothing elsewhere."""
    found = []
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as lines:
        for address, _, _, _, flags, _ in map(str.split, lines):
            if not int(flags, 16) & UNUSABLE:
                found.append(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address)))
    return found


def is_reachable(host: str) -> bool:
    """Neither loopback nor link-local, which no other machine could use, or not without a scope."""
    if ":" not in host:
        return not host.startswith(("127.", "169.254.", "0."))
    return host not in ("::1", "::") and not host.lower().startswith(("fe8", "fe9", "fea", "feb"))
