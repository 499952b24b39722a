"""UDP sockets of the selector loops."""

from __future__ import annotations

import socket

import pytest

from tunneld.shipped.udp_sockets import LONGEST_PACKET, batch, bound_everywhere


def test_a_batch_ends_when_nothing_is_left() -> None:
    """An error in between, such as an ICMP answer to something that was sent, is passed over."""
    said: list[str | OSError] = ["one", ConnectionRefusedError(), "two", BlockingIOError(), "never"]

    def read() -> str:
        first = said.pop(0)
        if isinstance(first, OSError):
            raise first
        return first

    assert list(batch(read)) == ["one", "two"]
    assert said == ["never"]


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_batch_is_bounded(is_broken: bool) -> None:
    """A socket that always has something, or always fails, keeps the others waiting for so long only."""
    calls = 0

    def read() -> int:
        nonlocal calls
        calls += 1
        if is_broken:
            raise ConnectionRefusedError
        return calls

    assert len(list(batch(read))) == (0 if is_broken else 64)
    assert calls == 64


def test_a_packet_of_any_ethernet_is_read_whole() -> None:
    """2048 bytes are read: Ethernet carries 1500."""
    assert LONGEST_PACKET == 2048


def test_a_socket_of_ipv6_takes_ipv6_alone() -> None:
    """So that the socket of IPv4 may have the same port."""
    try:
        sock = bound_everywhere(6)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_socket_of_each_family_may_have_the_same_port() -> None:
    """The one of IPv6 takes no IPv4; neither blocks, and a taken port is told."""
    with bound_everywhere(4) as four:
        port = four.getsockname()[1]
        try:
            six = bound_everywhere(6, port)
        except OSError:
            pytest.skip("there is no IPv6 here, or somebody has that port")
        with six, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"four", ("127.0.0.1", port))
            assert four.recv(10) == b"four"
            for sock in (four, six):
                with pytest.raises(BlockingIOError):
                    sock.recv(10)
            with pytest.raises(OSError):
                bound_everywhere(4, port)
