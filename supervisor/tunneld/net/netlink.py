"""What of rtnetlink(7) we speak: ask the kernel for one route, and read what it says on its own.

Everything is in the machine's byte order and padded to 4 bytes. A message is a header, a fixed part that its kind
decides, and attributes:

    header      length u32 | kind u16 | flags u16 | sequence u32 | port u32
    route       family u8 | destination, source length u8 u8 | tos u8 | table u8 | protocol u8 | scope u8 | type u8
                | flags u32
    link        family u8 | pad u8 | type u16 | interface i32 | flags u32 | changed u32
    address     family u8 | length u8 | flags u8 | scope u8 | interface u32
    error       errno i32, negative | the request's header
    attribute   length u16, this header included | type u16 | value

What does not parse ends the reading: what came before it counts.
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

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV4_RULE, _IPV6_IFADDR, _IPV6_ROUTE, and of the newer
# kind RTNLGRP_IPV6_RULE (19). A VPN often changes nothing but rules.
GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 1 << 18

# The kinds: NLMSG_ERROR, RTM_NEWLINK ...
ERROR: Final = 2
NEW_LINK: Final = 16
DEL_LINK: Final = 17
DEL_ADDRESS: Final = 21
NEW_ROUTE: Final = 24
DEL_ROUTE: Final = 25
GET_ROUTE: Final = 26

REQUEST: Final = 1  # NLM_F_REQUEST
UNICAST: Final = 1  # RTN_UNICAST: a way to somebody else, not ourselves, not a black hole
RUNNING: Final = 0x40  # IFF_RUNNING: up, and with a carrier (netdevice(7), RFC 2863's OPER_UP)

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
    """How packets to somewhere leave this machine. `interface` is its index, 0 where the kernel does not tell."""

    interface: int
    gateway: bytes
    source: Address


@dataclass(frozen=True, slots=True)
class Gone:
    """What the kernel says is no more: a link, an address on it, a default route over it. None: whatever it was."""

    interface: int
    source: Address | None = None
    gateway: bytes | None = None

    def was_part_of(self, route: KernelRoute) -> bool:
        return (
            self.interface == route.interface
            and self.source in (None, route.source)
            and self.gateway in (None, route.gateway)
        )


def question(target: Address, sequence: int) -> bytes:
    """Ask for the route to `target`. No packet leaves the machine."""
    family = socket.AF_INET if target.version == 4 else socket.AF_INET6
    packed = target.packed
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), DESTINATION) + packed
    return _HEADER.pack(_HEADER.size + len(body), GET_ROUTE, REQUEST, sequence, 0) + body


def answer(data: bytes, sequence: int) -> KernelRoute | None:
    """The route that was asked for; None where there is none.

    Raises:
        OSError: the kernel's error, with its errno.
        ValueError: this does not answer that question.
    """
    for kind, number, body in _messages(data):
        if number != sequence:
            continue
        if kind == ERROR and len(body) >= _ERROR.size:
            code = -_ERROR.unpack_from(body)[0]
            raise OSError(code, "no route")
        if kind == NEW_ROUTE and len(body) >= _ROUTE.size:
            return _route(body)
    raise ValueError("not the answer")


def gone(data: bytes) -> Iterator[Gone]:
    """What a datagram of the kernel's news says is no more."""
    for kind, _, body in _messages(data):
        found = _gone(kind, body)
        if found is not None:
            yield found


def _gone(kind: int, body: bytes) -> Gone | None:
    if kind in (NEW_LINK, DEL_LINK) and len(body) >= _LINK.size:
        _, _, interface, flags, _ = _LINK.unpack_from(body)
        return Gone(interface) if kind == DEL_LINK or not flags & RUNNING else None
    if kind == DEL_ADDRESS and len(body) >= _ADDRESS.size:
        found = _attributes(body[_ADDRESS.size :])
        # Of a point-to-point link, ADDRESS is the other end's.
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
    """Its address; that of an IPv4 route over an IPv6 gateway comes in another attribute, after its family."""
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
