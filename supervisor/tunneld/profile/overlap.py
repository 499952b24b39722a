"""Which listeners cannot exist at the same time: within one profile, and in the profiles of one daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations
from typing import Any

from tunneld.errors import Problem
from tunneld.profile.address import ForwardAddress, UnixAddress
from tunneld.profile.toml_lines import lines_of
from tunneld.profile.values import Direction, Profile, Relay

SSH_PORT = 22  # the port of a relay whose profile names none; ssh_config is not asked


@dataclass(frozen=True, slots=True)
class Listener:
    """The listening side of a profile's forward; `index` counts the profile's forwards from 0."""

    index: int
    direction: Direction
    address: ForwardAddress

    @property
    def on_the_relay(self) -> bool:
        """Whether the relay listens, and not this host."""
        return self.direction is Direction.REMOTE


def overlap(one: ForwardAddress, other: ForwardAddress) -> bool:
    """Whether one machine cannot listen on both addresses. Port 0 is a new port each time, so it overlaps with none."""
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    return one.port == other.port != 0 and hosts_overlap(one.host, other.host)


def hosts_overlap(one: str, other: str) -> bool:
    """Whether two hosts share an address. A wildcard is every address of its own family, as sshd and asyncio bind it.

    A name's addresses are not looked up: it overlaps with the same name, and with each wildcard.
    """
    first, second = _addresses(one), _addresses(other)
    if isinstance(first, str) or isinstance(second, str):
        is_wild = any(not isinstance(each, str) and any(a.is_unspecified for a in each) for each in (first, second))
        return first == second or is_wild
    return any(
        a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified) for a in first for b in second
    )


def overlapping(listeners: Iterable[Listener]) -> Iterator[tuple[Listener, Listener]]:
    """Each listener that overlaps with an earlier one, and the first of those."""
    seen: list[Listener] = []
    for listener in listeners:
        for earlier in seen:
            if earlier.on_the_relay == listener.on_the_relay and overlap(earlier.address, listener.address):
                yield listener, earlier
                break
        seen.append(listener)


def conflicts(profiles: Sequence[Profile]) -> tuple[Problem, ...]:
    """Why these profiles cannot run side by side; empty when they can. A problem names the later profile's file."""
    problems = [problem for one, other in combinations(profiles, 2) for problem in _between(one, other)]
    return tuple(dict.fromkeys(problems))


def _between(one: Profile, other: Profile) -> Iterator[Problem]:
    if one.name == other.name:
        yield Problem(other.file, 1, "", f"{one.file} has the same name, {one.name}: name it once, or rename one")
        return
    lines = lines_of(other.file)
    same_relay = not set(map(_server, one.relays)).isdisjoint(map(_server, other.relays))
    for listener in listeners_of(other):
        if taken := _taken(listener, listeners_of(one), same_relay):
            where = "on the same relay" if listener.on_the_relay else "on this host"
            text = f"{listener.address} is taken by forward[{taken.index + 1}] of {one.name} {where}"
            line = lines.get(("forward", listener.index, "listen"), 1)
            yield Problem(other.file, line, f"forward[{listener.index + 1}].listen", f"{text}: choose another port")
    if same_relay and one.mosh and other.mosh and hosts_overlap(one.mosh.bind, other.mosh.bind):
        first, last = max(one.mosh.ports.first, other.mosh.ports.first), min(one.mosh.ports.last, other.mosh.ports.last)
        if first <= last:
            line = lines.get(("mosh", "ports"), lines.get(("mosh",), 1))
            text = f"{other.mosh.ports} and {one.name}'s {one.mosh.ports} overlap on the same relay: choose others"
            yield Problem(other.file, line, "mosh.ports", text)


def listeners_of(profile: Profile) -> tuple[Listener, ...]:
    """The listening sides of the profile's forwards."""
    return tuple(Listener(i, forward.direction, forward.listen) for i, forward in enumerate(profile.forward))


def _taken(listener: Listener, others: Iterable[Listener], same_relay: bool) -> Listener | None:
    """The one of the others, a different profile's, that leaves no room for this listener."""
    for other in others:
        same_machine = other.on_the_relay == listener.on_the_relay and (same_relay or not listener.on_the_relay)
        if same_machine and overlap(other.address, listener.address):
            return other
    return None


def comparable_server(host: str, port: Any) -> tuple[str, Any]:
    """A relay's host and port in the one form in which two relays can be compared; None as `port`: not written."""
    return host.lower().rstrip("."), SSH_PORT if port is None else port


def _server(relay: Relay) -> tuple[str, int]:
    return comparable_server(relay.host, relay.port)


def _addresses(host: str) -> tuple[IPv4Address | IPv6Address, ...] | str:
    """The addresses of an address and of `localhost`; for any other name, the name in lower case."""
    name = host.lower().rstrip(".")
    if name == "localhost":
        return (ip_address("127.0.0.1"), ip_address("::1"))
    try:
        return (ip_address(name),)
    except ValueError:
        return name
