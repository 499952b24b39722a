"""Addresses as people write them, and back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunneld.profile import PortRange, TcpAddress, UnixAddress, parse_address
from tunneld.profile.address import LONGEST_SOCKET_PATH, parse_host, parse_path, parse_ports

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z][a-z0-9]{0,5}){0,2}", fullmatch=True),
)
PORTS = st.integers(0, 65535)
SOCKET_PATHS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20).map("/{}".format)


@given(HOSTS, PORTS)
def test_a_tcp_address_reads_back_as_itself(host: str, port: int) -> None:
    """parse_address() reads what str() writes, for names, IPv4 and IPv6."""
    address = TcpAddress(host, port)
    assert parse_address(str(address)) == address


@given(SOCKET_PATHS)
def test_a_socket_path_reads_back_as_itself(path: str) -> None:
    """A text with a slash in it is a path, whatever else is in it."""
    assert parse_address(str(UnixAddress(path))) == UnixAddress(path)


@given(PORTS, PORTS)
def test_a_range_of_ports_reads_back_as_itself(first: int, last: int) -> None:
    """Both ends are included, and the length agrees with the iteration."""
    ports = PortRange(first, last)
    assert parse_ports(str(ports)) == ports
    if first <= last:
        assert list(ports) == list(range(first, last + 1))
        assert len(ports) == last - first + 1


def test_ipv6_is_written_in_brackets() -> None:
    """Brackets belong to the text, not to the host."""
    assert str(TcpAddress("::1", 22)) == "[::1]:22"
    assert parse_address("[::1]:22") == TcpAddress("::1", 22)


def test_a_lone_port_is_a_range_of_one() -> None:
    """`60001` is `60001-60001`."""
    assert parse_ports("60001") == PortRange(60001, 60001)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an address"),
        ("22", "names no host"),
        ("relay", "is not an address"),
        ("::1:22", "in brackets"),
        ("[::1]", r'has no port: write "\[::1\]:22"'),
        ("[::1]22", "brackets in the wrong place"),
        ("a]:22", "brackets in the wrong place"),
        ("600011:22:", "in brackets"),
        ("127.0.0.1:ssh", "is not a port"),
        ("127.0.0.1:65536", "is not a port"),
        ("127.0.0.1:-1", "is not a port"),
        ("127.0.0.1:", "is not a port"),
        ("127.0.0.1:\N{ARABIC-INDIC DIGIT TWO}", "is not a port"),
        ("127.0.0.256:22", "neither a host name nor an IP address"),
        ("127.1:22", "neither a host name nor an IP address"),
        (":22", "neither a host name nor an IP address"),
        ("two words:22", "neither a host name nor an IP address"),
        ("a..example:22", "neither a host name nor an IP address"),
        (f"{'x' * 64}.example:22", "neither a host name nor an IP address"),
        ("127.0.0.1:0065536", "is not a port"),
        ("[1.2.3.4.5]:22", "neither a host name nor an IP address"),
        ("/run/a\nb", "no control characters"),
        ("/" + "x" * LONGEST_SOCKET_PATH, "at most 107 bytes"),
    ],
)
def test_a_wrong_address_is_refused_in_words(text: str, words: str) -> None:
    """Each fault has its own message."""
    with pytest.raises(ValueError, match=words):
        parse_address(text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused_in_words(text: str) -> None:
    """parse_address() raises nothing but ValueError, whose text stays on one line."""
    try:
        parse_address(text)
    except ValueError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize("host", ["pi", "pi.lan.", "a_b", "münchen.example", str(IPv4Address(1)), str(IPv6Address(1))])
def test_a_host_is_a_name_or_an_ip_address(host: str) -> None:
    """Names may be international, have underscores, and end with the root's dot."""
    assert parse_host(host) == host


@pytest.mark.parametrize(
    ("path", "is_right"), [("/" + "x" * 106, True), ("/" + "x" * 107, False), ("/" + "é" * 53, True)]
)
def test_a_sockets_path_has_at_most_107_bytes(path: str, is_right: bool) -> None:
    """So many fit before the NUL in sockaddr_un (unix(7))."""
    if is_right:
        assert parse_path(path) == UnixAddress(path)
    else:
        with pytest.raises(ValueError, match="at most 107 bytes"):
            parse_path(path)


def test_addresses_are_values() -> None:
    """Equal ones are one member of a set."""
    assert len({parse_address("a:1"), parse_address("a:1"), parse_address("/a"), parse_address("/a")}) == 2
    assert len({parse_ports("1-2"), PortRange(1, 2)}) == 1
