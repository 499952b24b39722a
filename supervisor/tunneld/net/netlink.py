"""The part of rtnetlink(7) that we speak: a request for one route, and the kernel's reports of what is gone.

Numbers are in the machine's byte order; messages and attributes are padded to 4 bytes. A message is a header, a fixed
part that depends on its kind, and attributes:

    header      length u32 | kind u16 | flags u16 | sequence u32 | port u32
    route       family u8 | destination, source length u8 u8 | tos u8 | table u8 | protocol u8 | scope u8 | type u8
                | flags u32
    link        family u8 | pad u8 | type u16 | interface i32 | flags u32 | changed u32
    address     family u8 | length u8 | flags u8 | scope u8 | interface u32
    error       errno i32, negative | the request's header
    attribute   length u16, this header included | type u16 | value

Reading ends at the first part that is malformed; the parts before it count.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Address = IPv4Address | IPv6Address

# The kinds of reports that we ask for, by linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE,
# _IPV6_IFADDR, _IPV6_ROUTE, and RTNLGRP_IPV6_RULE (19), which has no such constant. A VPN often changes only rules.
MULTICAST_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18

# The kinds of messages: NLMSG_ERROR, RTM_NEWLINK, RTM_DELLINK, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE.
ERROR: Final = 2
NEW_LINK: Final = 16
DEL_LINK: Final = 17
DEL_ADDRESS: Final = 21
NEW_ROUTE: Final = 24
DEL_ROUTE: Final = 25
GET_ROUTE: Final = 26

REQUEST: Final = 1  # NLM_F_REQUEST
UNICAST: Final = 1  # RTN_UNICAST: the route leads to another machine, not to this one, and into no black hole
RUNNING: Final = 0x40  # IFF_RUNNING: the link is up and has a carrier (netdevice(7), RFC 2863's OPER_UP)

# Attributes: RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PREFSRC, RTA_VIA; IFA_ADDRESS, IFA_LOCAL.
DESTINATION: Final = 1
INTERFACE: Final = 4
GATEWAY: Final = 5
PREFERRED_SOURCE: Final = 7
VIA: Final = 18
ADDRESS: Final = 1
LOCAL: Final = 2

_HEADER: Final = struct.Struct("=IHHII")
_ROUTE: Final = struct.Struct("=8BI")
_LINK: Final = struct.Struct("=BxHiII")
_ADDRESS: Final = struct.Struct("=4BI")
_ERROR: Final = struct.Struct("=i")
_ATTRIBUTE: Final = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """How packets to one address leave this machine.

    `interface` is an index, 0 where the kernel does not tell it. `gateway` is a packed address, empty for a neighbour.
    """

    interface: int
    gateway: bytes
    source: Address


@dataclass(frozen=True, slots=True)
class Gone:
    """A link that is gone, or the address `source` on it, or the default route over it by way of `gateway`.

    None stands for any address and any gateway.
    """

    interface: int
    source: Address | None = None
    gateway: bytes | None = None

    def was_part_of(self, route: KernelRoute) -> bool:
        """Whether the route cannot have worked while this was gone."""
        return (
            self.interface == route.interface
            and self.source in (None, route.source)
            and self.gateway in (None, route.gateway)
        )


def route_request(target: Address, sequence: int) -> bytes:
    """The message that asks the kernel for the route to `target`. No packet leaves the machine for it."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    packed = target.packed
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), DESTINATION) + packed
    return _HEADER.pack(_HEADER.size + len(body), GET_ROUTE, REQUEST, sequence, 0) + body


def parse_route_reply(data: bytes, sequence: int) -> KernelRoute | None:
    """The route that the request of this number asked for; None where it leads to no other machine.

    Raises:
        OSError: the kernel's error, with its errno.
        ValueError: the data holds no reply to that request.
    """
    for kind, number, body in _messages(data):
        if number != sequence:
            continue
        if kind == ERROR and len(body) >= _ERROR.size:
            code = -_ERROR.unpack_from(body)[0]
            raise OSError(code, "no route")
        if kind == NEW_ROUTE and len(body) >= _ROUTE.size:
            return _route(body)
    raise ValueError("not the reply")


def parse_losses(data: bytes) -> Iterator[Gone]:
    """What is gone, according to one datagram of the kernel's reports."""
    for kind, _, body in _messages(data):
        lost = _loss(kind, body)
        if lost is not None:
            yield lost


def _loss(kind: int, body: bytes) -> Gone | None:
    if kind in (NEW_LINK, DEL_LINK) and len(body) >= _LINK.size:
        _, _, interface, flags, _ = _LINK.unpack_from(body)
        return Gone(interface) if kind == DEL_LINK or not flags & RUNNING else None
    if kind == DEL_ADDRESS and len(body) >= _ADDRESS.size:
        found = _attributes(body[_ADDRESS.size :])
        # On a point-to-point link, ADDRESS is the address of the other end.
        return Gone(_ADDRESS.unpack_from(body)[4], source=_ip(found.get(LOCAL) or found.get(ADDRESS, b"")))
    if kind == DEL_ROUTE and len(body) >= _ROUTE.size and body[1] == 0:
        found = _attributes(body[_ROUTE.size :])
        return Gone(_number(found.get(INTERFACE)), gateway=_gateway(found))
    return None


def _route(body: bytes) -> KernelRoute | None:
    found = _attributes(body[_ROUTE.size :])
    kind = _ROUTE.unpack_from(body)[7]
    source = _ip(found.get(PREFERRED_SOURCE, b""))
    if kind != UNICAST or source is None:
        return None
    return KernelRoute(_number(found.get(INTERFACE)), _gateway(found), source)


def _gateway(found: dict[int, bytes]) -> bytes:
    """The packed address. Where an IPv4 route has an IPv6 gateway, VIA holds it instead, behind its family."""
    return found.get(GATEWAY) or found.get(VIA, b"")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, sys.byteorder) if value else 0


def _ip(value: bytes) -> Address | None:
    return ip_address(value) if len(value) in (4, 16) else None


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, sequence number and body of each whole message."""
    while len(data) >= _HEADER.size:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, sequence, data[_HEADER.size : length]
        data = data[_padded(length) :]


def _attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            break
        found[kind] = data[_ATTRIBUTE.size : length]
        data = data[_padded(length) :]
    return found


def _padded(length: int) -> int:
    return length + 3 & ~3
