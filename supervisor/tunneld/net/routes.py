"""The way out of this machine, as the kernel would take it now: a lookup, without a packet.

Only the routes that matter are asked for, so that whatever else happens here (a container's interface, a neighbour's
VPN) is no change.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from tunneld.net import netlink
from tunneld.net.netlink import RUNNING, Address, KernelRoute

# What stands for "anywhere": addresses kept for documentation (RFC 5737, RFC 3849), which are nobody's.
ANYWHERE: Final = (ip_address("198.51.100.1"), ip_address("2001:db8::1"))

# Each target, and the way there; None where there is none.
Signature = Mapping[Address, KernelRoute | None]

# Errors that say "there is no way". A blackhole route gives EINVAL, a prohibited one EACCES (ip-route(8)); without an
# IPv6 stack there is no such family.
NO_WAY: Final = {
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ESRCH, errno.ENETDOWN),
    *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),
}

SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
IFREQ: Final = struct.Struct("16sH22x")

# Seconds. The kernel answers a lookup before the question's system call returns; one that has not is none we know.
PATIENCE: Final = 1.0
LONGEST_ANSWER: Final = 8192


def signature(toward: Iterable[str] = ()) -> Signature:
    """The ways out: to anywhere, and `toward` these addresses (a relay on the LAN needs no way to anywhere).

    Raises:
        OSError: this cannot be known now (no descriptor is free).
    """
    targets = [*ANYWHERE, *targets_of(toward)]
    try:
        return _asked(targets)
    except (OSError, ValueError):
        return {target: _bound(target) for target in targets}


def usable(toward: Iterable[str] = ()) -> bool:
    """Whether any of these ways out exists; True when it cannot be known. For words, and for how long to wait.

    Not for whether to dial at all: who does not give an address `toward` misses a relay that only a special route
    leads to.
    """
    try:
        return any(signature(toward).values())
    except OSError:
        return True


def targets_of(addresses: Iterable[str]) -> list[Address]:
    """Those of the texts that are addresses of another machine, each once; a loopback is always there."""
    found = dict.fromkeys(map(_address, addresses))
    return [each for each in found if each and not (each.is_loopback or each.is_link_local or each.is_unspecified)]


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found


def _asked(targets: Iterable[Address]) -> Signature:
    """From the kernel's routing, by netlink."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(PATIENCE)
        return {target: _ask(kernel, target, number) for number, target in enumerate(targets, 1)}


def _ask(kernel: socket.socket, target: Address, number: int) -> KernelRoute | None:
    kernel.send(netlink.question(target, number))
    try:
        route = netlink.answer(kernel.recv(LONGEST_ANSWER), number)
    except OSError as error:
        if error.errno in NO_WAY:
            return None
        raise
    return route if route and _leads_out(route) and _is_running(kernel, route.interface) else None


def _leads_out(route: KernelRoute) -> bool:
    """As long as its own address is tentative (RFC 4862), IPv6 would speak from the loopback's or the link's."""
    return not (route.source.is_loopback or route.source.is_link_local)


def _is_running(asked: socket.socket, interface: int) -> bool:
    """Whether a link has its carrier: a route outlives a cable that was pulled out."""
    try:
        request = IFREQ.pack(socket.if_indextoname(interface).encode(), 0)
        flags: int = IFREQ.unpack(fcntl.ioctl(asked, SIOCGIFFLAGS, request))[1]
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.ENODEV)
    return bool(flags & RUNNING)


def _bound(target: Address) -> KernelRoute | None:
    """Where netlink is closed to us (a sandbox): the address that a UDP socket would speak from."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as asked:
            asked.connect((str(target), 9))
            source = ip_address(asked.getsockname()[0])
    except OSError as error:
        if error.errno in NO_WAY:
            return None
        raise
    return KernelRoute(0, b"", source)
