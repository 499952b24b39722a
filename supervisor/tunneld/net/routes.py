"""The routes by which packets would leave this machine now. The kernel looks them up, and no packet is sent.

Only the routes that matter are looked up, so that nothing else on this machine (a container's interface, another VPN)
counts as a change.
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

# They stand for "anywhere in the Internet": addresses for documentation (RFC 5737, RFC 3849), which nobody has.
FAR_AWAY: Final = (ip_address("198.51.100.1"), ip_address("2001:db8::1"))

# The route to each target; None where there is none.
Routes = Mapping[Address, KernelRoute | None]

# Errors that say "there is no route". A blackhole route gives EINVAL, a prohibited one EACCES (ip-route(8)); without an
# IPv6 stack there is no such family.
NO_ROUTE_ERRORS: Final = {
    *(errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ESRCH, errno.ENETDOWN),
    *(errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),
}

SIOCGIFFLAGS: Final = 0x8913  # netdevice(7)
IFREQ: Final = struct.Struct("16sH22x")

# Seconds. The kernel replies before the system call that sends the request returns, so a wait means a sandbox or a
# kernel that we do not know.
LOOKUP_TIMEOUT: Final = 1.0

LARGEST_REPLY: Final = 8192  # bytes


def current_routes(toward: Iterable[str] = ()) -> Routes:
    """The routes to `FAR_AWAY` and `toward` these addresses (a relay on the LAN needs no route to the Internet).

    Raises:
        OSError: they cannot be known now (no descriptor is free).
    """
    targets = [*FAR_AWAY, *targets_of(toward)]
    try:
        return _asked(targets)
    except (OSError, ValueError):
        return {target: _bound(target) for target in targets}


def targets_of(addresses: Iterable[str]) -> list[Address]:
    """The texts that are addresses of other machines, each once. Names are left out."""
    found = dict.fromkeys(map(_address, addresses))
    return [each for each in found if each and not (each.is_loopback or each.is_link_local or each.is_unspecified)]


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if found.version == 6 else found


def _asked(targets: Iterable[Address]) -> Routes:
    """By netlink, from the kernel's routing."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(LOOKUP_TIMEOUT)
        return {target: _ask(kernel, target, number) for number, target in enumerate(targets, 1)}


def _ask(kernel: socket.socket, target: Address, number: int) -> KernelRoute | None:
    kernel.send(netlink.route_request(target, number))
    try:
        route = netlink.parse_route_reply(kernel.recv(LARGEST_REPLY), number)
    except OSError as error:
        if error.errno in NO_ROUTE_ERRORS:
            return None
        raise
    return route if route and _leads_out(route) and _is_running(kernel, route.interface) else None


def _leads_out(route: KernelRoute) -> bool:
    """Whether it has an address that others can reply to.

    While the interface's own address is tentative (RFC 4862), IPv6 would send from the loopback or a link-local one.
    """
    return not (route.source.is_loopback or route.source.is_link_local)


def _is_running(asked: socket.socket, interface: int) -> bool:
    """Whether the interface has a carrier. Its routes stay when somebody pulls out the cable."""
    try:
        request = IFREQ.pack(socket.if_indextoname(interface).encode(), 0)
        flags: int = IFREQ.unpack(fcntl.ioctl(asked, SIOCGIFFLAGS, request))[1]
    except OSError as error:
        return error.errno not in (errno.ENXIO, errno.ENODEV)
    return bool(flags & RUNNING)


def _bound(target: Address) -> KernelRoute | None:
    """Where a sandbox forbids netlink: a route that knows only the address from which a UDP socket would send."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    try:
        with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as asked:
            asked.connect((str(target), 9))
            source = ip_address(asked.getsockname()[0])
    except OSError as error:
        if error.errno in NO_ROUTE_ERRORS:
            return None
        raise
    return KernelRoute(0, b"", source)
