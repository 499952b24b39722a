"""This machine's addresses, as the kernel tells them."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from tunneld.shipped import own_addresses


@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is not installed")
def test_they_are_those_that_ip_shows() -> None:
    """Without loopback and link-local ones, and at most the first IPv4 address of an interface."""
    shown = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    usable = {
        each["local"]
        for link in shown
        for each in link["addr_info"]
        if each.get("scope") == "global" and not each.get("deprecated") and not each.get("tentative")
    }
    firsts = {link["addr_info"][0]["local"] for link in shown if link["addr_info"]} & usable
    found = set(own_addresses.own())
    assert found <= usable
    assert len(usable) > own_addresses.MOST_OWN_ADDRESSES or firsts <= found


def test_the_default_routes_come_first() -> None:
    """If anything must be left out, it is not these."""
    sources = [host for host in map(own_addresses.source, own_addresses.FAR_HOSTS) if host]
    assert own_addresses.own()[: len(sources)] == sources


@pytest.mark.parametrize(
    ("host", "is_reachable"),
    [
        ("192.168.1.7", True),
        ("10.0.0.1", True),
        ("127.0.0.1", False),
        ("169.254.3.4", False),
        ("0.0.0.0", False),
        ("2001:db8::1", True),
        ("fd00::2", True),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("febf::1", False),
        ("fec0::1", True),
    ],
)
def test_who_can_be_reached(host: str, is_reachable: bool) -> None:
    """Private networks count: the peer may be in the same one."""
    assert own_addresses.is_reachable(host) is is_reachable


def test_nothing_changes_by_itself() -> None:
    """Two looks at a machine at rest."""
    assert own_addresses.signature() == own_addresses.signature()
    assert abs(own_addresses.slept() - own_addresses.slept()) < 0.01
