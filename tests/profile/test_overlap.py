"""Which listeners cannot exist at the same time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunneld.errors import Problem
from tunneld.profile import (
    Direction,
    Forward,
    Mosh,
    PortRange,
    Profile,
    Relay,
    TcpAddress,
    conflicts,
    load,
    parse_address,
)
from tunneld.profile.overlap import Listener, overlap, overlapping

SSH = TcpAddress("127.0.0.1", 22)


@pytest.mark.parametrize(
    ("one", "other", "overlaps"),
    [
        ("127.0.0.1:2222", "127.0.0.1:2222", True),
        ("127.0.0.1:2222", "127.0.0.1:2223", False),
        ("127.0.0.1:2222", "127.0.0.2:2222", False),
        ("127.0.0.1:2222", "0.0.0.0:2222", True),
        ("127.0.0.1:2222", "[::]:2222", False),
        ("0.0.0.0:2222", "[::]:2222", False),
        ("[::1]:2222", "[::]:2222", True),
        ("[::1]:2222", "[0:0::1]:2222", True),
        ("localhost:2222", "127.0.0.1:2222", True),
        ("localhost:2222", "[::1]:2222", True),
        ("localhost:2222", "192.0.2.1:2222", False),
        ("relay:2222", "RELAY.:2222", True),
        ("relay:2222", "0.0.0.0:2222", True),
        ("relay:2222", "other:2222", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("/run/a", "/run/a", True),
        ("/run/a", "/run/b", False),
        ("/run/a", "127.0.0.1:2222", False),
    ],
)
def test_two_listeners_on_one_machine(one: str, other: str, overlaps: bool) -> None:
    """A wildcard is every address of its family; port 0 overlaps with nothing; the order does not matter."""
    assert overlap(parse_address(one), parse_address(other)) is overlaps
    assert overlap(parse_address(other), parse_address(one)) is overlaps


def profile(name: str, **parts: object) -> Profile:
    whole = Profile(
        name=name,
        file=Path(f"/nowhere/{name}.toml"),
        relays=(Relay(host="relay.example.net"),),
        forward=(Forward(TcpAddress("127.0.0.1", 2222), SSH),),
    )
    return replace(whole, **parts)  # type: ignore[arg-type]


def keys(*profiles: Profile) -> list[str]:
    return [problem.key for problem in conflicts(profiles)]


def test_two_profiles_that_want_one_port_of_a_relay() -> None:
    """The problem names the later profile's file, and says which earlier profile has the port."""
    problem = conflicts((profile("a"), profile("b")))
    assert problem == (
        Problem(
            Path("/nowhere/b.toml"),
            1,
            "forward[1].listen",
            "127.0.0.1:2222 is taken by forward[1] of a on the same relay: choose another port",
        ),
    )


def test_the_relay_is_the_same_however_it_is_written() -> None:
    """A capital, the root's dot and the default port make no difference; another port is another relay."""
    assert keys(profile("a"), profile("b", relays=(Relay(host="Relay.Example.net.", port=22),)))
    assert not keys(profile("a"), profile("b", relays=(Relay(host="relay.example.net", port=2200),)))
    assert not keys(profile("a"), profile("b", relays=(Relay(host="other.example.net"),)))


def test_one_relay_in_common_is_enough() -> None:
    """Any relay of a tunnel may serve it one day."""
    several = (Relay(host="first"), Relay(host="relay.example.net"))
    assert keys(profile("a"), profile("b", relays=several)) == ["forward[1].listen"]
    assert not keys(profile("a"), profile("b", relays=several[:1]))


def test_listeners_on_this_host_meet_whatever_the_relay() -> None:
    """Local and dynamic forwards of every profile share this host."""
    local = Forward(TcpAddress("127.0.0.1", 1080), SSH, Direction.LOCAL)
    dynamic = Forward(TcpAddress("127.0.0.1", 1080), None, Direction.DYNAMIC)
    other = (Relay(host="other.example.net"),)
    assert keys(profile("a", forward=(local,)), profile("b", forward=(dynamic,), relays=other)) == ["forward[1].listen"]


def test_a_listener_here_and_one_on_the_relay_do_not_meet() -> None:
    """The same port on two machines is two ports."""
    local = Forward(TcpAddress("127.0.0.1", 2222), SSH, Direction.LOCAL)
    assert not keys(profile("a"), profile("b", forward=(local,)))


@pytest.mark.parametrize(
    ("ports", "bind", "expected"),
    [
        (PortRange(60005, 60014), "0.0.0.0", ["mosh.ports"]),
        (PortRange(60005, 60014), "192.0.2.1", ["mosh.ports"]),
        (PortRange(60010, 60019), "0.0.0.0", ["mosh.ports"]),
        (PortRange(59992, 60001), "0.0.0.0", ["mosh.ports"]),
        (PortRange(60005, 60014), "::", []),
        (PortRange(60011, 60020), "0.0.0.0", []),
    ],
)
def test_mosh_ports_of_two_profiles(ports: PortRange, bind: str, expected: list[str]) -> None:
    """On one relay they may not share a port, unless they listen on different addresses."""
    first = Mosh(PortRange(60001, 60010), bind="0.0.0.0", to="127.0.0.1")
    second = Mosh(ports, bind=bind, to="127.0.0.1")
    assert keys(profile("a", forward=(), mosh=first), profile("b", forward=(), mosh=second)) == expected


def test_two_profiles_of_one_name() -> None:
    """The name is also the status socket's, so only one profile can have it."""
    (problem,) = conflicts((profile("a"), profile("a", relays=(Relay(host="other"),))))
    assert "has the same name" in problem.text


def test_a_conflict_is_reported_at_its_line(tmp_path: Path) -> None:
    """The later profile's file is looked up for the line of its listener."""
    text = '[relay]\nhost = "r"\n\n[[forward]]\nlisten = "127.0.0.1:2222"\nto = "127.0.0.1:22"\n'
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text(text)
    (problem,) = conflicts([load(str(tmp_path / f"{name}.toml")) for name in ("a", "b")])
    assert (problem.file.name, problem.line) == ("b.toml", 5)


def test_the_first_of_several_that_overlap_is_named() -> None:
    """Only listeners on one machine overlap; this host has its own ports."""
    remote, local = Direction.REMOTE, Direction.LOCAL
    hosts = [(local, "127.0.0.1"), (remote, "127.0.0.1"), (remote, "0.0.0.0"), (remote, "127.0.0.1"), (local, "::1")]
    listeners = [Listener(index, where, TcpAddress(host, 80)) for index, (where, host) in enumerate(hosts)]
    assert [(later.index, earlier.index) for later, earlier in overlapping(listeners)] == [(2, 1), (3, 1)]
