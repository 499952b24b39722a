"""The names that the UDP paths need."""

from __future__ import annotations

import contextlib
import select
import socket

import pytest

from tunneld.core.pair.candidate import UdpAddress
from tunneld.mosh.resolve import MOST_HOSTS, MOST_SERVERS, NameLookup, ResolvedNames, reachable_addresses

KNOWN = {
    "big.example": tuple(f"198.51.100.{number}" for number in range(1, 20)),
    "pi.example": ("198.51.100.1", "198.51.100.2", "2001:db8::1"),
    "odd.example": ("127.0.0.1", "fe80::1%eth0", "198.51.100.1"),
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name service that knows little."""

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in KNOWN:
            raise socket.gaierror
        return [(0, 0, 0, "", (name, port)) for name in KNOWN[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_one_of_each_family_comes_first() -> None:
    """A STUN server is asked once over each family."""
    assert [each.host for each in reachable_addresses("pi.example", 1)] == [
        "198.51.100.1",
        "2001:db8::1",
        "198.51.100.2",
    ]


def test_only_what_others_reach_is_an_address() -> None:
    """A loopback or link-local address means another machine elsewhere."""
    assert reachable_addresses("odd.example", 3478) == [UdpAddress("198.51.100.1", 3478)]
    assert reachable_addresses("nobody.example", 3478) == []


def test_the_loop_is_woken_when_all_is_known() -> None:
    """Looking up names may take seconds, and a session does not wait for it."""
    with contextlib.closing(NameLookup("pi.example", [("odd.example", 3478), ("nobody.example", 1)])) as lookup:
        assert select.select([lookup.fd], [], [], 10)[0]
        hosts = ["198.51.100.1", "2001:db8::1", "198.51.100.2"]
        assert lookup.found == ResolvedNames(hosts, [UdpAddress("198.51.100.1", 3478)], ["nobody.example"])


def test_few_addresses_are_used() -> None:
    """A name may have hundreds, and many servers may be named."""
    servers = [("big.example", port) for port in range(1, 10)]
    with contextlib.closing(NameLookup("big.example", servers)) as lookup:
        assert select.select([lookup.fd], [], [], 10)[0]
        assert len(lookup.found.hosts) == MOST_HOSTS
        assert len(lookup.found.servers) == MOST_SERVERS
        assert [each.port for each in lookup.found.servers] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_machine_behind_a_jump_host_is_not_looked_up() -> None:
    """Its name means something on the jump host only."""
    with contextlib.closing(NameLookup(None, [])) as lookup:
        assert select.select([lookup.fd], [], [], 10)[0]
        assert lookup.found == ResolvedNames([], [], [])
