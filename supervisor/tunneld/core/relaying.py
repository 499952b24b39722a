"""Two ends that cannot reach each other meet at a third machine, which passes their sealed packets on.

It holds no key: it tells the ends by the identities that their packets carry, and knows each by where its packets come
from. Only who has seen such packets could pretend, and win nothing but their loss; nothing is sent but to the two.
"""

from __future__ import annotations

from collections import Counter

from tunneld.core.flow import Rate
from tunneld.core.packet import IDENTITY, LARGEST, TAG, identity_of
from tunneld.core.path import Address

PACKETS = 1000.0
"""A second, both ways together, and at once: ten times a flood of output with all its copies."""


class Relaying:
    """One pair's relay; `identities` are those of packet.identities. `counts` says what was refused and why."""

    def __init__(self, identities: tuple[bytes, bytes], counts: Counter[str]) -> None:
        self._ends: dict[bytes, Address | None] = dict.fromkeys(identities)
        self._counts = counts
        self._rate = Rate(PACKETS, PACKETS)

    def pass_on(self, packet: bytes, source: Address, now: float) -> Address | None:
        """Where to send what came from `source`; None: nowhere."""
        identity = identity_of(packet)
        if identity not in self._ends or not IDENTITY + TAG < len(packet) <= LARGEST:
            self._counts["packets_of_strangers"] += 1
            return None
        if not self._rate.allows(now):
            self._counts["packets_refused_rate"] += 1
            return None
        self._ends[identity] = source
        return next((end for other, end in self._ends.items() if other != identity), None)
