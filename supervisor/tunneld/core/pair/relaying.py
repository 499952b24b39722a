"""Two ends that cannot reach each other meet at a third machine, which passes their sealed packets on.

The relay holds no key. It tells the two ends apart by the identities in their packets, and remembers the address from
which each end's packets come. Whoever has seen such packets could pretend to be an end, but would gain nothing except
that packets get lost. Nothing is sent to anybody but the two ends.
"""

from __future__ import annotations

from collections import Counter

from tunneld.core.pair.candidate import UdpAddress
from tunneld.core.pair.packet import IDENTITY_SIZE, LARGEST_PACKET, TAG_SIZE, identity_of
from tunneld.core.stream.flow import Rate

PACKET_RATE = 1000.0
"""Packets a second, both ways together, and as many at once: ten times a flood of output with all its copies."""

SILENT_AFTER = 30.0
"""Seconds by which an end's packets of one address family may be older than those of the other before that family
counts as silent. Probes come each 10 s."""


class Relaying:
    """One pair's relay; `identities` are those of packet.identities. `counts` says what was refused, and why."""

    def __init__(self, identities: tuple[bytes, bytes], counts: Counter[str]) -> None:
        self._ends = {identity: RelayedEnd() for identity in identities}
        self._counts = counts
        self._rate = Rate(PACKET_RATE, PACKET_RATE)

    @property
    def heard(self) -> tuple[float | None, ...]:
        """When each end was heard last, in the order of the identities; None: never."""
        return tuple(end.heard for end in self._ends.values())

    def pass_on(self, packet: bytes, source: UdpAddress, now: float) -> UdpAddress | None:
        """Where to send a packet that came from `source`; None: nowhere."""
        identity = identity_of(packet)
        if identity not in self._ends or not IDENTITY_SIZE + TAG_SIZE < len(packet) <= LARGEST_PACKET:
            self._counts["packets_of_strangers"] += 1
            return None
        if not self._rate.allows(now):
            self._counts["packets_refused_rate"] += 1
            return None
        self._ends[identity].hear(source, now)
        return next(end.reached_from(source) for other, end in self._ends.items() if other != identity)


class RelayedEnd:
    """Where one end's packets come from, in each family: an end that has both families tries both, as two paths."""

    def __init__(self) -> None:
        self.heard: float | None = None
        self._sources: dict[int, tuple[float, UdpAddress]] = {}  # by family: when it was heard, and where

    def hear(self, source: UdpAddress, now: float) -> None:
        """A packet of this end's came from `source`."""
        self.heard = now
        self._sources[source.family] = now, source

    def reached_from(self, other: UdpAddress) -> UdpAddress | None:
        """Where this end is reached by what came from `other`; None: this end was never heard.

        It is the address of the same family, so that an answer takes its question's path back. If that family has gone
        silent, it is the address that was heard last.
        """
        if self.heard is None:
            return None
        when, alike = self._sources.get(other.family, (-SILENT_AFTER, None))
        return alike if alike and self.heard - when <= SILENT_AFTER else max(self._sources.values())[1]
