"""Who listens on a port, and which listeners are in each other's way."""

from __future__ import annotations

import io
import os
import socket
import sys

import pytest

from tests.sshd import free_port
from tunneld.shipped import port_holders
from tunneld.shipped.port_holders import holders, user_name

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's socket")


@pytest.mark.parametrize(
    ("bound", "asked", "clashes"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "*", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "::1", False),
        ("127.0.0.2", "localhost", False),
        ("127.0.0.2", "relay.example.net", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::1", "localhost", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_who_holds_a_port_is_told(bound: str, asked: str, clashes: bool) -> None:
    """By the kernel's table of sockets that listen."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=family) as listener:
        user = user_name(os.geteuid())
        assert holders([(asked, listener.getsockname()[1])]) == [[True, user] if clashes else None]


def test_a_kernel_without_ipv4_tells_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each family has a table of its own."""

    def without_ipv4(path: str) -> object:
        if path == "/proc/net/tcp":
            raise FileNotFoundError(path)
        return open(path)

    monkeypatch.setattr(port_holders, "open", without_ipv4, raising=False)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert holders([("::1", listener.getsockname()[1])]) == [[True, user_name(os.geteuid())]]


@pytest.mark.skipif(sys.byteorder != "little", reason="the line is of a little-endian machine")
def test_a_line_of_the_table_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is four words of 32 bits in the machine's order; what listens comes before what does not."""
    line = "0: B80D0120785634120000000001000000:1F90 0:0 {} 0:0 00:0 0 1000 0 1\n"
    text = "header\n" + line.format("0A") + line.format("01") + line.format("0A")
    monkeypatch.setattr(port_holders, "open", lambda path: io.StringIO(text if "6" in path else ""), raising=False)
    address = socket.inet_pton(socket.AF_INET6, "2001:db8:1234:5678::1")
    assert port_holders.listening_sockets() == [(address, 8080, 1000)]


def test_a_free_port_is_held_by_nobody() -> None:
    """Which is told by None."""
    assert holders([("127.0.0.1", free_port())]) == [None]


@needs_root
def test_another_users_listener_is_told_apart() -> None:
    """By its socket's owner."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.fchown(listener.fileno(), 65534, -1)
        assert holders([("127.0.0.1", listener.getsockname()[1])]) == [[False, "nobody"]]


def test_only_listeners_count() -> None:
    """A connection from a port is no listener on it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert holders([("127.0.0.1", client.getsockname()[1])]) == [None]


def test_a_user_without_a_name_is_told_by_number() -> None:
    """Such as one of a container that shares the network."""
    assert user_name(4_000_000_000) == "4000000000"


def test_nothing_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay may hide it, or be no Linux."""

    def hidden(name: str) -> None:
        raise FileNotFoundError(name)

    monkeypatch.setattr(port_holders, "open", hidden, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert holders([("127.0.0.1", listener.getsockname()[1])]) == [None]
