"""Two ends that cannot reach each other meet at a third machine, which passes their sealed packets on.

It holds no key: it tells the ends by the identities that their packets carry, and knows each by where its packets come
from. Only who has seen such packets could pretend, and win nothing but their loss; nothing is sent but to the two.
"""

from __future__ import annotations

from collections import Counter

from tunneld.core.pair.packet import IDENTITY, LARGEST, TAG, identity_of
from tunneld.core.pair.path import UdpAddress
from tunneld.core.stream.flow import Rate

PACKETS = 1000.0
"""A second, both ways together, and at once: ten times a flood of output with all its copies."""

FRESH = 30.0
"""Seconds by which one family's packets may be older than the other's, and it still lives: probes come each 10."""


class Relaying:
    """One pair's relay; `identities` are those of packet.identities. `counts` says what was refused and why."""

    def __init__(self, identities: tuple[bytes, bytes], counts: Counter[str]) -> None:
        self._ends = {identity: RelayedEnd() for identity in identities}
        self._counts = counts
        self._rate = Rate(PACKETS, PACKETS)

    @property
    def heard(self) -> tuple[float | None, ...]:
        """When each end was heard last, in the order of the identities; None: never."""
        return tuple(end.heard for end in self._ends.values())

    def pass_on(self, packet: bytes, source: UdpAddress, now: float) -> UdpAddress | None:
        """Where to send what came from `source`; None: nowhere."""
        identity = identity_of(packet)
        if identity not in self._ends or not IDENTITY + TAG < len(packet) <= LARGEST:
            self._counts["packets_of_strangers"] += 1
            return None
        if not self._rate.allows(now):
            self._counts["packets_refused_rate"] += 1
            return None
        self._ends[identity].hear(source, now)
        return next(end.reached_from(source) for other, end in self._ends.items() if other != identity)


class RelayedEnd:
    """Where one end's packets come from, in each family: an end that has two tries both, and each is a path."""

    def __init__(self) -> None:
        self.heard: float | None = None
        self._sources: dict[int, tuple[float, UdpAddress]] = {}

    def hear(self, source: UdpAddress, now: float) -> None:
        self.heard = now
        self._sources[source.family] = now, source

    def reached_from(self, other: UdpAddress) -> UdpAddress | None:
        """The address that makes one path of both ways: of the family of `other`, unless that has gone silent."""
        if self.heard is None:
            return None
        when, alike = self._sources.get(other.family, (-FRESH, None))
        return alike if alike and self.heard - when <= FRESH else max(self._sources.values())[1]
