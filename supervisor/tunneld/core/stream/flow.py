"""Flows: the UDP conversations of an endpoint, bounded in every way in which the network could make them grow.

At an ingress a flow is an ingress port and a client's address, and anybody can make one by sending a datagram.
mosh-server answers only clients that hold its key. So an *answered* flow belongs to a person; an unanswered flow is
evicted when there are too many.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

MAX_DATAGRAM = 1472
"""Bytes: what one Ethernet frame carries over IPv4 and UDP; mosh sends at most 1252."""

MIN_MOSH = 24
"""Bytes: mosh's clear sequence number (8) and its authentication tag (16); a shorter datagram is not mosh's."""

INGRESS_IDLE = 60.0
"""Seconds without a datagram from the client after which the ingress ends a flow: mosh sends one each 3 s, and keeps an
old socket for 60 s after it changed its port."""

OUTLET_IDLE = 3 * INGRESS_IDLE
"""Seconds of the same for the outlet: longer, so that the ingress ends a flow and the outlet merely follows."""

MAX_FLOWS = 256
"""Flows of one tunnel: far more than people, but bounded in memory (about 1 KiB each) and sockets."""

MAX_FLOWS_OF_SOURCE = 64
"""Flows of one address: an office behind one NAT."""

EVICTION_GRACE = 5.0
"""Seconds before an unanswered flow may be evicted: a client asks four times a second, and the answer takes a round
trip."""

REPLAY_WINDOW = 1024
"""Sequence numbers that are remembered: a copy on a second carrier comes seconds late at most. 1024 numbers are 24 s of
mosh's 43 datagrams a second."""


class Rate:
    """A token bucket: `burst` tokens at once, `rate` new ones a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._filled = burst, 0.0

    def allows(self, now: float) -> bool:
        """Take one token; False when there is none."""
        if not self.has_token(now):
            return False
        self._tokens -= 1
        return True

    def has_token(self, now: float) -> bool:
        """Whether `allows` would find a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        return self._tokens >= 1


class SeenNumbers:
    """Accepts each sequence number once; a number that is REPLAY_WINDOW or more behind the highest counts as seen.

    Numbers are modulo 2^bits: a number that is less than half of that ahead is newer (RFC 1982).
    """

    def __init__(self, bits: int = 32) -> None:
        self._half = 1 << bits - 1
        self._highest = -1
        self._bits = 0  # bit n: the number that is n below the highest was seen

    def accepts(self, number: int) -> bool:
        """Whether `number` is new; it counts as seen from now on."""
        ahead = (number - self._highest + self._half) % (2 * self._half) - self._half
        if ahead > 0:
            self._bits = ((self._bits << ahead) | 1) & ((1 << REPLAY_WINDOW) - 1) if ahead < REPLAY_WINDOW else 1
            self._highest = number
            return True
        if -ahead >= REPLAY_WINDOW or self._bits >> -ahead & 1:
            return False
        self._bits |= 1 << -ahead
        return True


class Flow:
    """One UDP conversation.

    `peer` is the client's address at an ingress, and whatever the owner puts there elsewhere. `group` is whom the flow
    counts for, `opened` and `heard` are seconds: when it was made, and when its peer last sent a datagram. `answered`:
    mosh-server has sent a datagram back. `next_number` is the sequence number of the next datagram that we send.
    """

    __slots__ = ("answered", "group", "heard", "key", "next_number", "number", "opened", "peer", "rate", "seen")

    def __init__(self, number: int, key: Any, group: Any, now: float) -> None:
        self.number = number
        self.key = key
        self.group = group
        self.peer: Any = None
        self.opened = self.heard = now
        self.answered = False
        self.next_number = 0
        self.seen = SeenNumbers()
        # What an unanswered flow may send; a mosh-client without an answer sends at most four datagrams a second.
        self.rate = Rate(10, 20)

    @property
    def port(self) -> int:
        """The ingress port."""
        return self.number >> 16


class Bounds(NamedTuple):
    """What a FlowTable allows: flows in all and of one group, seconds of idleness, and the rate of new flows."""

    flows: int = MAX_FLOWS
    flows_of_group: int = MAX_FLOWS_OF_SOURCE
    idle: float = INGRESS_IDLE
    new_rate: float = 32.0  # new flows a second, and
    new_burst: float = 128.0  # at once: a whole office that comes back after an outage


class FlowTable:
    """The flows of one endpoint, by key and by number. `counts` says how many flows were refused, and why."""

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
        """The flow with this number."""
        return self._by_number.get(number)

    def find(self, key: Any) -> Flow | None:
        """The flow with this key (at an ingress: port and client's address)."""
        return self._by_key.get(key)

    def fresh_number(self, port: int) -> int:
        """A flow number for this ingress port that is not in use."""
        while True:
            self._serial = (self._serial + 1) & 0xFFFF
            number = port << 16 | self._serial
            if number not in self._by_number:
                return number

    def admit(self, number: int, now: float, *, key: Any, group: Any = None) -> tuple[Flow | None, list[Flow]]:
        """Make a flow if the bounds allow it; `group` is whom it counts for, None for nobody.

        Returns:
            The flow, or None when it was refused; and a list of the flows that were evicted for it: none or one,
            which the table holds no more.
        """
        if not self._new.has_token(now):
            self.counts["flows_refused_rate"] += 1
            return None, []
        evicted = []
        competitors = self._competitors(group)
        if competitors is not None:
            evictable = (flow for flow in competitors if not flow.answered and now - flow.opened >= EVICTION_GRACE)
            victim = min(evictable, key=lambda flow: flow.heard, default=None)
            if victim is None:
                # This takes no token, so that a source with too many flows leaves the tokens to other sources.
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
        """Forget a flow; one that is gone already does no harm."""
        self._by_key.pop(flow.key, None)
        self._by_number.pop(flow.number, None)

    def expired(self, now: float) -> list[Flow]:
        """Remove and return the flows that have been idle for too long."""
        idle = [flow for flow in self._by_number.values() if now - flow.heard > self.bounds.idle]
        for flow in idle:
            self.remove(flow)
        self.counts["flows_expired"] += len(idle)
        return idle

    def _competitors(self, group: Any) -> list[Flow] | None:
        """The flows of which one must be evicted for a new flow of `group`; None when there is room."""
        if group is not None:
            members = [flow for flow in self._by_number.values() if flow.group == group]
            if len(members) >= self.bounds.flows_of_group:
                return members
        if len(self._by_number) >= self.bounds.flows:
            return list(self._by_number.values())
        return None
