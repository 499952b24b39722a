"""This machine's addresses, as the kernel tells them."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tunneld.shipped import own_addresses
from tunneld.shipped.udp_sockets import bound_everywhere


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


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells whose a port is")
@pytest.mark.parametrize(("family", "other"), [(4, 6), (6, 4)])
def test_a_port_is_ours_in_the_family_in_which_we_hold_it(family: int, other: int) -> None:
    """Nobody has it in the other family, and none is ours once it is closed."""
    families = {4: socket.AF_INET, 6: socket.AF_INET6}
    try:
        sock = bound_everywhere(family)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with sock:
        port = sock.getsockname()[1]
        assert own_addresses.is_own_port(families[family], port)
        assert not own_addresses.is_own_port(families[other], port)
    assert not own_addresses.is_own_port(families[family], port)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a socket away")
def test_another_users_port_is_not_ours() -> None:
    """The kernel's table names the owner of each socket."""
    with bound_everywhere(4) as sock:
        os.fchown(sock.fileno(), 65534, -1)
        assert not own_addresses.is_own_port(socket.AF_INET, sock.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such list")
def test_usable_addresses_in_linuxs_list_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that are tentative, deprecated, or found twice in the network; temporary ones are."""
    flags = {1: "80", 2: "08", 3: "20", 4: "40", 5: "01", 6: "c0", 7: "00"}
    lines = "".join(f"20010db80000000000000000000000{last:02x} 02 40 00 {flag} eth0\n" for last, flag in flags.items())
    monkeypatch.setattr(own_addresses, "open", lambda _: io.StringIO(lines), raising=False)
    assert own_addresses._ipv6() == ["2001:db8::1", "2001:db8::5", "2001:db8::7"]


def test_the_first_address_of_each_interface() -> None:
    """The loopback interface has one as well, which `own` leaves out."""
    assert "127.0.0.1" in own_addresses._ipv4()


def test_twelve_addresses_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the default routes first, then IPv4, each once; what nobody reaches does not count."""
    many = [f"10.0.0.{last}" for last in range(20)]
    monkeypatch.setattr(own_addresses, "source", {socket.AF_INET: "10.0.0.7", socket.AF_INET6: None}.get)
    monkeypatch.setattr(own_addresses, "_ipv4", lambda: ["127.0.0.1", *many])
    monkeypatch.setattr(own_addresses, "_ipv6", lambda: ["2001:db8::1"])
    assert own_addresses.own() == ["10.0.0.7", *many[:7], *many[8:12]]


@pytest.mark.parametrize(
    ("clocks", "slept"),
    [
        pytest.param({"CLOCK_BOOTTIME": 900, "CLOCK_MONOTONIC": 600}, 300, id="Linux"),
        pytest.param({"CLOCK_MONOTONIC": 900, "CLOCK_UPTIME_RAW": 500}, 400, id="macOS"),
        pytest.param({"CLOCK_MONOTONIC": 900}, 0, id="a system that does not tell"),
    ],
)
def test_how_long_the_machine_has_slept(clocks: dict[str, int], slept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The difference of two clocks, of which one stands still in sleep. Here a clock's number is what it shows."""
    monkeypatch.setattr(own_addresses, "time", SimpleNamespace(**clocks, clock_gettime=float))
    assert own_addresses.slept() == slept


def test_the_source_is_where_packets_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel chooses it by the route to the far host; None where that leads nowhere."""
    monkeypatch.setattr(own_addresses, "FAR_HOSTS", {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "no address"})
    assert own_addresses.source(socket.AF_INET) == "127.0.0.1"
    assert own_addresses.source(socket.AF_INET6) is None


def test_a_port_is_ours_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Linux has the table."""

    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(own_addresses, "open", missing, raising=False)
    assert own_addresses.is_own_port(socket.AF_INET, 1)
