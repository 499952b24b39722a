"""rtnetlink on the wire. The golden bytes are little-endian, as the kernel of such a machine gave them."""

from __future__ import annotations

import contextlib
import errno
import sys
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.net.netlink import Gone, KernelRoute, parse_losses, parse_route_reply, route_request

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the golden bytes are little-endian")

ROUTE = bytes.fromhex(
    "44 00 00 00 18 00 00 00 01 00 00 00 00 00 00 00"  # 68 bytes, RTM_NEWROUTE, the answer to 1
    "02 20 00 00 fe 00 00 01 00 02 00 00"  # IPv4, /32, table main, unicast, cloned
    "08 00 01 00 c6 33 64 01"  # to 198.51.100.1
    "08 00 04 00 04 00 00 00"  # interface 4
    "08 00 07 00 c0 a8 01 02"  # from 192.168.1.2
    "08 00 05 00 c0 a8 01 01"  # by 192.168.1.1
    "08 00 10 00 00 00 00 00"  # RTA_UID, of no interest
)
UNREACHABLE = bytes.fromhex(
    "24 00 00 00 02 00 00 00 01 00 00 00 00 00 00 00"
    "9b ff ff ff"  # -ENETUNREACH
    "24 00 00 00 1a 00 01 00 01 00 00 00 00 00 00 00"
)
LINK_LOST = bytes.fromhex(
    "20 00 00 00 10 00 00 00 00 00 00 00 00 00 00 00"
    "00 00 01 00 04 00 00 00 03 10 00 00 00 00 00 00"  # interface 4: up, not running
)
LINK_FOUND = LINK_LOST.replace(bytes.fromhex("03 10 00 00"), bytes.fromhex("43 10 01 00"))
LINK_DELETED = bytes.fromhex("20 00 00 00 11") + LINK_FOUND[5:]
ADDRESS_LOST = bytes.fromhex(
    "28 00 00 00 15 00 00 00 00 00 00 00 00 00 00 00"
    "02 18 80 00 04 00 00 00"  # IPv4, /24, permanent, on interface 4
    "08 00 01 00 c0 a8 01 63"  # the other end, of a point-to-point link
    "08 00 02 00 c0 a8 01 02"
)
DEFAULT_LOST = bytes.fromhex(
    "2c 00 00 00 19 00 00 00 00 00 00 00 00 00 00 00"
    "02 00 00 00 fe 03 00 01 00 00 00 00"  # /0
    "08 00 05 00 c0 a8 01 01"
    "08 00 04 00 04 00 00 00"
)
OTHER_ROUTE_LOST = DEFAULT_LOST.replace(bytes.fromhex("02 00 00 00 fe"), bytes.fromhex("02 18 00 00 fe"))

THE_ROUTE = KernelRoute(4, ip_address("192.168.1.1").packed, ip_address("192.168.1.2"))


def test_the_request_on_the_wire() -> None:
    """One RTM_GETROUTE with a destination, for each family."""
    assert route_request(ip_address("198.51.100.1"), 1).hex(" ") == (
        "24 00 00 00 1a 00 01 00 01 00 00 00 00 00 00 00 02 20 00 00 00 00 00 00 00 00 00 00 08 00 01 00 c6 33 64 01"
    )
    assert route_request(ip_address("2001:db8::1"), 2).hex(" ") == (
        "30 00 00 00 1a 00 01 00 02 00 00 00 00 00 00 00 0a 80 00 00 00 00 00 00 00 00 00 00 "
        "14 00 01 00 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01"
    )


def test_a_reply_is_a_route() -> None:
    """Interface, gateway and source are kept; nothing else that the kernel tells is."""
    assert parse_route_reply(ROUTE, 1) == THE_ROUTE


def test_a_gateway_of_the_other_family_counts() -> None:
    """An IPv4 route over an IPv6 gateway (RFC 5549) names it in RTA_VIA."""
    via = ROUTE.replace(bytes.fromhex("08 00 05 00"), bytes.fromhex("08 00 12 00"))
    assert parse_route_reply(via, 1) == KernelRoute(4, ip_address("192.168.1.1").packed, ip_address("192.168.1.2"))


def test_only_a_route_to_another_machine_is_one() -> None:
    """The documentation address may be this machine's own, or an unreachable route."""
    for kind in (2, 7):  # RTN_LOCAL, RTN_UNREACHABLE
        assert parse_route_reply(ROUTE[:23] + bytes([kind]) + ROUTE[24:], 1) is None


def test_the_kernels_error_is_raised() -> None:
    """With its errno, which tells a missing route from a missing right."""
    with pytest.raises(OSError) as raised:
        parse_route_reply(UNREACHABLE, 1)
    assert raised.value.errno == errno.ENETUNREACH


def test_a_reply_to_another_request_is_none() -> None:
    """An earlier reply that came too late must not be taken for this one."""
    with pytest.raises(ValueError):
        parse_route_reply(ROUTE, 2)


@pytest.mark.parametrize(
    ("news", "told"),
    [
        (LINK_LOST, [Gone(4)]),
        (LINK_FOUND, []),
        (LINK_DELETED, [Gone(4)]),
        (ADDRESS_LOST, [Gone(4, source=ip_address("192.168.1.2"))]),
        (DEFAULT_LOST, [Gone(4, gateway=ip_address("192.168.1.1").packed)]),
        (OTHER_ROUTE_LOST, []),
        (ROUTE, []),
        (LINK_LOST + LINK_FOUND + ADDRESS_LOST, [Gone(4), Gone(4, source=ip_address("192.168.1.2"))]),
    ],
)
def test_what_is_gone(news: bytes, told: list[Gone]) -> None:
    """A link without its carrier, an address, a default route; several messages may share a datagram."""
    assert list(parse_losses(news)) == told


@pytest.mark.parametrize(
    ("lost", "ours"),
    [
        (Gone(4), True),
        (Gone(5), False),
        (Gone(4, source=ip_address("192.168.1.2")), True),
        (Gone(4, source=ip_address("192.168.1.3")), False),
        (Gone(4, gateway=ip_address("192.168.1.1").packed), True),
        (Gone(4, gateway=ip_address("192.168.1.9").packed), False),
    ],
)
def test_what_was_part_of_a_route(lost: Gone, ours: bool) -> None:
    """It has the same interface, and the same address or gateway on it."""
    assert lost.was_part_of(THE_ROUTE) is ours


@given(st.integers(0, len(DEFAULT_LOST)))
def test_a_report_cut_anywhere_is_no_fault(cut: int) -> None:
    """The messages that are whole before the cut count."""
    assert next(parse_losses(LINK_LOST + DEFAULT_LOST[:cut])) == Gone(4)


@given(st.binary(max_size=200))
def test_no_bytes_are_a_fault_of_ours(data: bytes) -> None:
    """Any bytes can be read; only a reply may raise, and only as it says."""
    list(parse_losses(data))
    with contextlib.suppress(OSError, ValueError):
        parse_route_reply(data, 1)
