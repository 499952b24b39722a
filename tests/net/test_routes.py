"""Which addresses are looked up. What the kernel answers is tested in tests/lab/test_watch.py."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from tunneld.net import routes
from tunneld.net.netlink import KernelRoute
from tunneld.net.routes import FAR_AWAY, current_routes, targets_of


def test_only_other_machines_are_targets() -> None:
    """A name, a loopback and a link-local address say nothing about the network; each address counts once."""
    given = ["relay.example.net", "127.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0", "192.0.2.9", "::ffff:192.0.2.9"]
    assert targets_of(given) == [ip_address("192.0.2.9")]


def test_every_target_has_an_entry() -> None:
    """An address far away of each family, and what was named, whether there is a route or not."""
    assert set(current_routes(["192.0.2.9"])) == {*FAR_AWAY, ip_address("192.0.2.9")}


def test_what_cannot_be_known_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor nobody is told that all routes are gone."""

    def no_socket(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(OSError):
        current_routes()


def test_without_netlink_a_socket_tells_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox without netlink leaves the address from which a UDP socket would send."""

    def forbidden(*_: object) -> routes.Routes:
        raise OSError(errno.EAFNOSUPPORT, "forbidden")

    monkeypatch.setattr(routes, "_asked", forbidden)
    monkeypatch.setattr(routes, "FAR_AWAY", (ip_address("127.0.0.1"),))
    assert current_routes() == {ip_address("127.0.0.1"): KernelRoute(0, b"", ip_address("127.0.0.1"))}
