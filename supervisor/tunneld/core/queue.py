"""Datagrams that wait for credit: little, fresh, and fair between flows.

mosh rebuilds its state from the last acknowledged one after RTO + ack delay (at most 1.1 s), so what is older helps
nobody and only delays what is new. Its instructions may span several datagrams, sent at once and all full-size but the
last. Half an instruction is worthless, so whole ones are dropped: what is too old, and when too much waits, the oldest
of the flow that has the most waiting. Flows that nobody has answered yet may be anybody's: they wait for the others,
and give way first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

MAX_AGE = 1.1
"""Seconds: mosh's largest RTO (1 s) and its acknowledgement delay (100 ms)."""

MAX_BYTES = 48 * 1024
"""Bytes that wait, over all flows: one large screen's instruction and room for the keystrokes of others."""

OVERHEAD = 64
"""Bytes that a datagram counts beyond its own: without it, empty ones would be free."""

FRAGMENT = 400
"""Bytes: a datagram as large as its flow's largest, and at least this, is taken for one with another to follow."""

TOGETHER = 0.25
"""Seconds: what comes later is another instruction (mosh's longest frame interval; it sends fragments at once)."""


class Waiting(NamedTuple):
    """`stranger`: nobody has answered its flow yet."""

    flow: int
    number: int
    datagram: bytes
    since: float
    stranger: bool = False

    @property
    def cost(self) -> int:
        return len(self.datagram) + OVERHEAD


class _Lane:
    """One flow's datagrams, first in, first out."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.cost = 0
        self.is_stranger = False
        self._largest = FRAGMENT
        self._dropped: Waiting | None = None

    def push(self, waiting: Waiting) -> bool:
        """False when it is the rest of an instruction whose head was dropped: it goes the same way."""
        self._largest = max(self._largest, len(waiting.datagram))
        self.is_stranger = waiting.stranger
        if self._continues_dropped(waiting):
            self._dropped = waiting
            return False
        self.waiting.append(waiting)
        self.cost += waiting.cost
        return True

    def pop(self) -> Waiting:
        waiting = self.waiting.popleft()
        self.cost -= waiting.cost
        return waiting

    def drop_instruction(self) -> int:
        """Drop the oldest instruction; the number of datagrams that went."""
        self._dropped = self.pop()
        dropped = 1
        while self.waiting and self._continues_dropped(self.waiting[0]):
            self._dropped = self.pop()
            dropped += 1
        return dropped

    def _continues_dropped(self, waiting: Waiting) -> bool:
        last = self._dropped
        return last is not None and len(last.datagram) >= self._largest and waiting.since - last.since <= TOGETHER


class DatagramQueue:
    """Bounded in bytes and age; `dropped` counts datagrams that were given up."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    @property
    def cost(self) -> int:
        """Bytes that wait, each datagram's overhead included."""
        return sum(lane.cost for lane in self._lanes.values())

    def push(self, waiting: Waiting) -> None:
        lane = self._lanes.setdefault(waiting.flow, _Lane())
        if not lane.push(waiting):
            self.dropped += 1
            return
        while self.cost > MAX_BYTES:
            crowded = max(self._lanes.values(), key=lambda lane: (lane.is_stranger and lane.cost > 0, lane.cost))
            self.dropped += crowded.drop_instruction()

    def pop(self, now: float) -> Waiting | None:
        """The next fresh datagram, flows taking turns, strangers last; None when nothing waits."""
        for lane in self._lanes.values():
            while lane.waiting and now - lane.waiting[0].since > MAX_AGE:
                self.dropped += lane.drop_instruction()
        ready = [(flow, lane) for flow, lane in self._lanes.items() if lane.waiting]
        if not ready:
            return None
        flow, lane = min(ready, key=lambda one: one[1].is_stranger)
        self._lanes.move_to_end(flow)
        return lane.pop()

    def forget(self, flow: int) -> None:
        """The flow has ended: what waits for it goes, uncounted."""
        self._lanes.pop(flow, None)
