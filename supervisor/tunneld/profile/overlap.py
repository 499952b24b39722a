"""Which listeners cannot stand beside one another: within a profile, and between the profiles of one daemon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import combinations

from tunneld.errors import Problem
from tunneld.profile.address import ForwardAddress, UnixAddress
from tunneld.profile.toml_lines import lines_of
from tunneld.profile.values import Direction, Profile, Relay

SSH_PORT = 22  # what a relay without a port is taken to mean


@dataclass(frozen=True, slots=True)
class Listener:
    """One forward's listening side; `index` counts from 0 in its profile."""

    index: int
    direction: Direction
    address: ForwardAddress

    @property
    def on_the_relay(self) -> bool:
        return self.direction is Direction.REMOTE


def overlap(one: ForwardAddress, other: ForwardAddress) -> bool:
    """Whether one machine cannot listen on both. Port 0 is a fresh port each time."""
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return one == other
    return one.port == other.port != 0 and hosts_overlap(one.host, other.host)


def hosts_overlap(one: str, other: str) -> bool:
    """Whether two hosts share an address; a wildcard holds its own family, as sshd and asyncio bind it."""
    first, second = _addresses(one), _addresses(other)
    if isinstance(first, str) or isinstance(second, str):
        wild = any(not isinstance(each, str) and any(a.is_unspecified for a in each) for each in (first, second))
        return first == second or wild
    return any(
        a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified) for a in first for b in second
    )


def overlapping(listeners: Iterable[Listener]) -> Iterator[tuple[Listener, Listener]]:
    """Each listener that an earlier one leaves no room for, and the first such."""
    seen: list[Listener] = []
    for listener in listeners:
        for earlier in seen:
            if earlier.on_the_relay == listener.on_the_relay and overlap(earlier.address, listener.address):
                yield listener, earlier
                break
        seen.append(listener)


def conflicts(profiles: Sequence[Profile]) -> tuple[Problem, ...]:
    """Why these profiles cannot run side by side; empty when they can. Each problem stands at the later profile."""
    problems = [problem for one, other in combinations(profiles, 2) for problem in _between(one, other)]
    return tuple(dict.fromkeys(problems))


def _between(one: Profile, other: Profile) -> Iterator[Problem]:
    if one.name == other.name:
        yield Problem(other.file, 1, "", f"{one.file} has the same name, {one.name}: name it once, or rename one")
        return
    lines = lines_of(other.file)
    same_relay = not set(map(_relay, one.relays)).isdisjoint(map(_relay, other.relays))
    for listener in listeners(other):
        if taken := _taken(listener, listeners(one), same_relay):
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


def listeners(profile: Profile) -> tuple[Listener, ...]:
    return tuple(Listener(i, forward.direction, forward.listen) for i, forward in enumerate(profile.forward))


def _taken(listener: Listener, others: Iterable[Listener], same_relay: bool) -> Listener | None:
    for other in others:
        same_machine = other.on_the_relay == listener.on_the_relay and (same_relay or not listener.on_the_relay)
        if same_machine and overlap(other.address, listener.address):
            return other
    return None


def _relay(relay: Relay) -> tuple[str, int]:
    return relay.host.lower().rstrip("."), relay.port or SSH_PORT


def _addresses(host: str) -> tuple[IPv4Address | IPv6Address, ...] | str:
    """The addresses that a host is known to mean; for another name, the name."""
    name = host.lower().rstrip(".")
    if name == "localhost":
        return (ip_address("127.0.0.1"), ip_address("::1"))
    try:
        return (ip_address(name),)
    except ValueError:
        return name
