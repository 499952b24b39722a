"""Datagrams that wait for credit: little, fresh, and fair between flows.

mosh rebuilds its state from the last acknowledged one after RTO + ack delay (at most 1.1 s), so what is older helps
nobody and only delays what is new. Its instructions may span several datagrams: all full-size but the last. Half an
instruction is worthless, so whole ones are dropped, the oldest first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

MAX_AGE = 1.1
"""Seconds: mosh's largest RTO (1 s) and its acknowledgement delay (100 ms)."""

MAX_BYTES = 48 * 1024
"""Bytes that wait, over all flows: one large screen's instruction and room for the keystrokes of others."""

FRAGMENT = 400
"""Bytes: a datagram as large as its flow's largest, and at least this, is taken for one with another to follow."""


class Waiting(NamedTuple):
    flow: int
    number: int
    datagram: bytes
    since: float


class _Lane:
    """One flow's datagrams, first in, first out."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        self.largest = FRAGMENT
        self.torn = False  # the head of the instruction that is arriving was dropped; its rest goes the same way

    def has_follower(self, datagram: bytes) -> bool:
        return len(datagram) >= self.largest

    def drop_instruction(self) -> int:
        """Drop the oldest instruction; the number of datagrams that went."""
        dropped = 0
        self.torn = True
        while self.waiting and self.torn:
            dropped += 1
            self.torn = self.has_follower(self.waiting.popleft().datagram)
        return dropped


class DatagramQueue:
    """Bounded in bytes and age; `dropped` counts datagrams that were given up."""

    def __init__(self) -> None:
        self.dropped = 0
        self._lanes: OrderedDict[int, _Lane] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def push(self, waiting: Waiting) -> None:
        lane = self._lanes.setdefault(waiting.flow, _Lane())
        lane.largest = max(lane.largest, len(waiting.datagram))
        if lane.torn:
            lane.torn = lane.has_follower(waiting.datagram)
            self.dropped += 1
            return
        lane.waiting.append(waiting)
        self._bytes += len(waiting.datagram)
        while self._bytes > MAX_BYTES:
            self._drop_oldest()

    def pop(self, now: float) -> Waiting | None:
        """The next fresh datagram, flows taking turns; None when nothing waits."""
        self._expire(now)
        for flow, lane in self._lanes.items():
            if lane.waiting:
                self._lanes.move_to_end(flow)
                waiting = lane.waiting.popleft()
                self._bytes -= len(waiting.datagram)
                return waiting
        return None

    def forget(self, flow: int) -> None:
        """The flow has ended: what waits for it goes, uncounted."""
        lane = self._lanes.pop(flow, None)
        if lane:
            self._bytes -= sum(len(waiting.datagram) for waiting in lane.waiting)

    def _expire(self, now: float) -> None:
        for lane in self._lanes.values():
            while lane.waiting and now - lane.waiting[0].since > MAX_AGE:
                self._drop(lane)

    def _drop_oldest(self) -> None:
        lanes = (lane for lane in self._lanes.values() if lane.waiting)
        self._drop(min(lanes, key=lambda lane: lane.waiting[0].since))

    def _drop(self, lane: _Lane) -> None:
        before = sum(len(waiting.datagram) for waiting in lane.waiting)
        self.dropped += lane.drop_instruction()
        self._bytes -= before - sum(len(waiting.datagram) for waiting in lane.waiting)
