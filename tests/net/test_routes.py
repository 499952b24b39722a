"""Which addresses are looked up. That the kernel answers is the lab's."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

import pytest

from tunneld.net import routes
from tunneld.net.netlink import KernelRoute
from tunneld.net.routes import ANYWHERE, signature, targets_of, usable


def test_only_other_machines_are_targets() -> None:
    """A name, a loopback and a link's own address say nothing about the network; each address counts once."""
    given = ["relay.example.net", "127.0.0.1", "::1", "fe80::1%eth0", "0.0.0.0", "192.0.2.9", "::ffff:192.0.2.9"]
    assert targets_of(given) == [ip_address("192.0.2.9")]


def test_every_target_has_an_entry() -> None:
    """Both families' "anywhere", and what was named, whether there is a way or not."""
    assert set(signature(["192.0.2.9"])) == {*ANYWHERE, ip_address("192.0.2.9")}


def test_what_cannot_be_known_is_taken_for_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a free descriptor nobody is told that there is no network."""

    def no_socket(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socket", no_socket)
    with pytest.raises(OSError):
        signature()
    assert usable()


def test_without_netlink_a_socket_tells_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox without netlink leaves the address that a UDP socket would speak from."""

    def forbidden(*_: object) -> routes.Signature:
        raise OSError(errno.EAFNOSUPPORT, "forbidden")

    monkeypatch.setattr(routes, "_asked", forbidden)
    monkeypatch.setattr(routes, "ANYWHERE", (ip_address("127.0.0.1"),))
    assert signature() == {ip_address("127.0.0.1"): KernelRoute(0, b"", ip_address("127.0.0.1"))}
