"""Flows: who talks through an endpoint, bounded in every way that the network could push.

At an ingress a flow is an ingress port and a peer's address; anybody can make one by sending a datagram. mosh-server
answers only those who hold its key, so a flow that was *answered* is a person, and one that was not gives way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

MAX_DATAGRAM = 1472
"""Bytes: what one Ethernet frame carries over IPv4 and UDP; mosh sends at most 1252."""

MIN_MOSH = 24
"""Bytes: mosh's clear sequence number (8) and its authentication tag (16); less is not mosh."""

IDLE = 60.0
"""Seconds without a datagram from the client: mosh speaks each 3 s, and keeps an old socket for 60 s after a hop."""

LONG_IDLE = 3 * IDLE
"""Seconds for the far endpoint: longer than IDLE, so that the ingress ends a flow and the other side merely follows."""

MAX_FLOWS = 256
"""Flows of one tunnel: far more than people, little enough memory (about 1 KiB each) and sockets."""

MAX_FLOWS_OF_SOURCE = 64
"""Flows of one address: an office behind one NAT."""

CHANCE = 5.0
"""Seconds that an unanswered flow is safe for: a client asks four times a second, and an answer takes a round trip."""

SEEN = 1024
"""Sequence numbers that are remembered: over two carriers a copy is late by seconds at most, 43 datagrams each."""


class Rate:
    """A token bucket: `burst` at once, `rate` a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled = burst, 0.0

    def allows(self, now: float) -> bool:
        """Take one token if there is one."""
        if not self.has_one(now):
            return False
        self._tokens -= 1
        return True

    def has_one(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return self._tokens >= 1


class SeenNumbers:
    """Which sequence numbers have come, each accepted once; one older than the last SEEN counts as seen.

    Numbers are modulo 2^bits: what is less than half of that ahead is newer (RFC 1982).
    """

    def __init__(self, bits: int = 32) -> None:
        self._half = 1 << bits - 1
        self._highest = -1
        self._bits = 0

    def accepts(self, number: int) -> bool:
        ahead = (number - self._highest + self._half) % (2 * self._half) - self._half
        if ahead > 0:
            self._bits = ((self._bits << ahead) | 1) & ((1 << SEEN) - 1) if ahead < SEEN else 1
            self._highest = number
            return True
        if -ahead >= SEEN or self._bits >> -ahead & 1:
            return False
        self._bits |= 1 << -ahead
        return True


class Flow:
    """One UDP conversation. `peer` is the client's address at an ingress, anything of the caller's elsewhere."""

    __slots__ = ("answered", "group", "heard", "key", "number", "opened", "peer", "seen", "sent", "unanswered")

    def __init__(self, number: int, key: Any, group: Any, now: float) -> None:
        self.number = number
        self.key = key
        self.group = group
        self.peer: Any = None
        self.opened = self.heard = now
        self.answered = False
        self.sent = 0
        self.seen = SeenNumbers()
        # A mosh-client that has no answer yet sends at most four a second.
        self.unanswered = Rate(10, 20)

    @property
    def port(self) -> int:
        return self.number >> 16


class Bounds(NamedTuple):
    flows: int = MAX_FLOWS
    flows_of_group: int = MAX_FLOWS_OF_SOURCE
    idle: float = IDLE
    new_rate: float = 32.0  # new flows a second, and
    new_burst: float = 128.0  # at once: a whole office that comes back after an outage


class FlowTable:
    """The flows of one endpoint. `counts` says what was refused and why."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.counts: Counter[str] = Counter()
        self._by_key: dict[Any, Flow] = {}
        self._by_number: dict[int, Flow] = {}
        self._new = Rate(bounds.new_rate, bounds.new_burst)
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_number)

    def get(self, number: int) -> Flow | None:
        return self._by_number.get(number)

    def find(self, key: Any) -> Flow | None:
        return self._by_key.get(key)

    def fresh_number(self, port: int) -> int:
        """A flow number for this ingress port that is not in use."""
        while True:
            self._serial = (self._serial + 1) & 0xFFFF
            number = port << 16 | self._serial
            if number not in self._by_number:
                return number

    def admit(self, number: int, now: float, *, key: Any, group: Any = None) -> tuple[Flow | None, list[Flow]]:
        """Make a flow if the bounds allow it.

        Returns:
            The flow, or None when it was refused; and the flow that had to give way, if one had to.
        """
        if not self._new.has_one(now):
            self.counts["flows_refused_rate"] += 1
            return None, []
        evicted = []
        crowded = self._crowd(group)
        if crowded is not None:
            had_their_chance = (flow for flow in crowded if not flow.answered and now - flow.opened >= CHANCE)
            victim = min(had_their_chance, key=lambda flow: flow.heard, default=None)
            if victim is None:
                # Costs no token, so that one busy source leaves the others theirs.
                self.counts["flows_refused_full"] += 1
                return None, []
            self.counts["flows_evicted"] += 1
            self.remove(victim)
            evicted.append(victim)
        self._new.allows(now)
        flow = Flow(number, key, group, now)
        self._by_key[key] = self._by_number[number] = flow
        self.counts["flows_opened"] += 1
        return flow, evicted

    def remove(self, flow: Flow) -> None:
        self._by_key.pop(flow.key, None)
        self._by_number.pop(flow.number, None)

    def expired(self, now: float) -> list[Flow]:
        """The flows that have been idle for too long; they are removed."""
        idle = [flow for flow in self._by_number.values() if now - flow.heard > self.bounds.idle]
        for flow in idle:
            self.remove(flow)
        self.counts["flows_expired"] += len(idle)
        return idle

    def _crowd(self, group: Any) -> list[Flow] | None:
        """Those among whom one must give way for a new flow of `group`; None when there is room."""
        if group is not None:
            members = [flow for flow in self._by_number.values() if flow.group == group]
            if len(members) >= self.bounds.flows_of_group:
                return members
        if len(self._by_number) >= self.bounds.flows:
            return list(self._by_number.values())
        return None
