"""OFFER: one end of a pair tells the other over a stream where it may be reached over UDP.

    {"round": 3, "ports": {"4": 41000, "6": 41001}, "candidates": [["lan", "192.168.1.7", 41000], ...]}

`round` grows with each offer of an end, so a copy that comes on another stream is known as one. `ports` are the end's
own UDP ports by address family; its peer tries them with the addresses that SSH shows for the end. Whoever gets an
offer tries everything in it at once, as the sender does on its side: that opens the NATs between them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tunneld.core.pair.candidate import KINDS, Candidate, UdpAddress
from tunneld.core.stream import frame
from tunneld.core.stream.frame import Frame

MAX_CANDIDATES = 16
"""A laptop has about six: two families on cable and radio, what STUN saw, a mapped port, a relay."""


class Offer(NamedTuple):
    """`round` is at least 1 in an offer from the wire; `ports` has one for each family that the end has."""

    round: int
    ports: Mapping[int, int]  # by family, 4 or 6
    candidates: tuple[Candidate, ...]

    def encode(self) -> Frame:
        """The frame that carries the offer."""
        return frame.message(
            frame.OFFER,
            {
                "round": self.round,
                "ports": {str(family): port for family, port in self.ports.items()},
                "candidates": [[kind, *address] for kind, address in self.candidates],
            },
        )


def read(body: dict[str, Any]) -> Offer | None:
    """The offer in the JSON object of a peer's frame; None when its shape is wrong.

    Ports and candidates that make no sense are left out, and so is every candidate after MAX_CANDIDATES.
    """
    count: Any = body.get("round")
    ports, candidates = body.get("ports"), body.get("candidates")
    if not _is_number(count, 1 << 32) or not isinstance(ports, dict) or not isinstance(candidates, list):
        return None
    return Offer(
        count,
        {family: ports[str(family)] for family in (4, 6) if _is_number(ports.get(str(family)), 1 << 16)},
        tuple(candidate for one in candidates[:MAX_CANDIDATES] if (candidate := _candidate(one))),
    )


def distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Each candidate once, in order, and no more than MAX_CANDIDATES."""
    return tuple(dict.fromkeys(candidates))[:MAX_CANDIDATES]


def _candidate(value: object) -> Candidate | None:
    if not isinstance(value, list) or len(value) != 3 or value[0] not in KINDS or not _is_number(value[2], 1 << 16):
        return None
    address = reachable(value[1])
    return Candidate(value[0], UdpAddress(address, value[2])) if address else None


def reachable(host: object) -> str | None:
    """A numeric address in its usual spelling; None when no peer is reached there.

    Names, scoped and IPv4-mapped addresses give None; so do loopback, link-local, multicast and broadcast addresses,
    so that a peer cannot make us knock at our own machine or network.
    """
    if not isinstance(host, str) or len(host) > 45 or "%" in host:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped:
        return None
    nowhere = address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    return None if nowhere or host == "255.255.255.255" else str(address)


def _is_number(value: object, below: int) -> bool:
    return type(value) is int and 0 < value < below  # a bool is an int, but no number here
